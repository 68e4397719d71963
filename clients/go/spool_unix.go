//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package headway

import (
	"os"
	"syscall"
)

// locking: a claimed file is locked, and so stays open.
const locking = true

const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// lockFile fails if another process has the file. The system releases the lock of a process that has died.
func lockFile(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

func ownFile(about os.FileInfo) bool {
	known, ok := about.Sys().(*syscall.Stat_t)
	return ok && int(known.Uid) == os.Geteuid()
}

func openToOthers(folder os.FileInfo) bool { return folder.Mode().Perm()&0o077 != 0 }
