package nfs

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lakefsfs/lakefsfs/vfs"
)

// A write verifier changes when bytes of unstable writes could have been lost: then clients send them again. What a client writes is in
// a file of the kernel's when it is answered, so the death of the daemon loses nothing; only that of the kernel does, or another disk in
// the place of the one that was written to. To change it at each start would be right too, but not harmless: Linux' client, which sent a
// file's bytes before it set the file's time of modification, sends them again after it, and the time is the present then.

// writeVerifier is the verifier of a directory's disk, for as long as the kernel runs and the disk stays mounted. Where the kernel doesn't
// tell whether it did, it is another one at each start.
func writeVerifier(key []byte, dir string) (uint64, error) {
	var st unix.Statx_t
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err == nil {
		err = unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_INO|unix.STATX_MNT_ID_UNIQUE, &st)
	}
	if dir == "" || err != nil || st.Mask&unix.STATX_INO == 0 || st.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return newVerifier()
	}
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "write verifier\n%s\n%d:%d %d %d", boot, st.Dev_major, st.Dev_minor, st.Ino, st.Mnt_id)
	return binary.BigEndian.Uint64(h.Sum(nil)), nil
}

// newVerifier is one that nobody had before.
func newVerifier() (uint64, error) {
	var b [8]byte
	if _, err := rand.Read(b[:]); err != nil {
		return 0, fmt.Errorf("nfs: %w", err)
	}
	return binary.BigEndian.Uint64(b[:]), nil
}

// verifier is the write verifier of a node. What was written to a control file is in memory until it is carried out.
func (s *Server) verifier(n *node) uint64 {
	if n.form == vfs.FormControlFile {
		return s.verfControl
	}
	return s.verf
}
