package nfs

import "testing"

// knfsd starts Linux' server in the guest. /srv is exported twice, to write and to read.
const knfsd = `
mkdir -p /srv/rw /srv/ro/d
echo content >/srv/ro/f && echo more >/srv/ro/d/f && ln -s f /srv/ro/l
chmod 777 /srv/rw
cat >/etc/exports <<END
/srv/rw *(rw,async,insecure,no_root_squash,no_subtree_check,fsid=1)
/srv/ro *(ro,insecure,no_root_squash,no_subtree_check,fsid=2)
END
mount -t nfsd nfsd /proc/fs/nfsd
rpcbind
rpc.mountd --port 20048
exportfs -ar
rpc.nfsd 8`

// kernelServer mounts what Linux' server exports.
func (g *guest) kernelServer(export, dir, opts string) {
	g.t.Helper()
	if g.sh("/", "pgrep -x rpc.mountd").Code != 0 {
		g.ok("/", knfsd)
	}
	g.ok("/", "mkdir -p "+dir+" && mount -t nfs -o vers=3,tcp,nolock,"+opts+" 127.0.0.1:"+export+" "+dir)
}

// The bar: the checks ask for nothing that Linux' own server doesn't do.
func TestKernelServer(t *testing.T) {
	long(t)
	g := newGuest(t)
	g.kernelServer("/srv/rw", "/mnt/one", "rw")
	g.kernelServer("/srv/rw", "/mnt/two", "nosharecache")
	g.kernelServer("/srv/ro", "/mnt/ro", "rw")
	g.check("battery", "check", "-second", "/mnt/two", "/mnt/one")
	g.check("readonly", "readonly", "/mnt/ro")
}
