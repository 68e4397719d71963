//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package headway

import "os"

// locking: here an open file could be neither renamed nor removed.
const locking = false

const noFollow = 0

// lockFile does nothing here: that two processes send the same letter is harmless, since its reports are numbered.
func lockFile(*os.File) error { return nil }

func ownFile(os.FileInfo) bool { return true }

func openToOthers(os.FileInfo) bool { return false }
