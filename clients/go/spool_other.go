//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package headway

import "os"

// locking: these systems can neither rename nor remove an open file.
const locking = false

const noFollow = 0

// lockFile does nothing here. Two processes may send the same file: its reports are numbered, so they count once.
func lockFile(*os.File) error { return nil }

func ownFile(os.FileInfo) bool { return true }

func openToOthers(os.FileInfo) bool { return false }
