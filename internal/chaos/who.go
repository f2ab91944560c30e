package chaos

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// ownerOf finds which of some processes holds the TCP socket at local that is connected to remote, both of IPv4: -1 if none does. It is
// what a front knows its callers by: they all come from one address, and what they say may be encrypted.
func ownerOf(local, remote net.Addr, pids []int) (int, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return -1, err
	}
	defer f.Close()
	want := [2]string{hexAddr(local), hexAddr(remote)}
	inode := ""
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		// sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
		fields := strings.Fields(sc.Text())
		if len(fields) > 9 && fields[1] == want[0] && fields[2] == want[1] {
			inode = fields[9]
			break
		}
	}
	if err := sc.Err(); err != nil {
		return -1, err
	}
	if inode == "" || inode == "0" {
		return -1, nil
	}
	target := "socket:[" + inode + "]"
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/fd", pid)
		ents, err := os.ReadDir(dir)
		if err != nil {
			continue // it died
		}
		for _, e := range ents {
			if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && to == target {
				return pid, nil
			}
		}
	}
	return -1, nil
}

// hexAddr writes an address as /proc/net/tcp does: the four bytes as one number of the machine, then the port.
func hexAddr(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return ""
	}
	four := ap.Addr().Unmap().As4()
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(four[:]), ap.Port())
}
