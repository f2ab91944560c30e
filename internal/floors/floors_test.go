// Package floors holds the law of imports: they point down, and each large library has one user.
package floors

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/lakefsfs/lakefsfs/"

// allowed is what each package may import of the module. A package that is not here is an error: decide where it belongs.
var allowed = map[string][]string{
	"graveler":                          {},
	"graveler/gravelerpb":               {},
	"graveler/committed":                {"graveler", "graveler/gravelerpb", "object"}, // tables are objects
	"object":                            {"graveler"},                                  // kinds of errors
	"object/objecttest":                 {"graveler", "object"},
	"cache":                             {"graveler", "object"}, // a decorator of object stores
	"spill":                             {"graveler", "object"}, // a file may begin as an object
	"engine":                            {"graveler", "object"}, // the contract
	"engine/internal/replica":           {"graveler", "graveler/committed", "object", "engine", "engine/internal/replica/replicapb", "engine/internal/replica/wal"},
	"engine/internal/replica/wal":       {"graveler"},
	"engine/internal/replica/replicapb": {},
	"engine/internal/look":              {"graveler", "engine"},
	"engine/internal/settle":            {"graveler", "object", "spill", "engine"},
	"engine/local":                      {"graveler", "graveler/committed", "object", "spill", "engine", "engine/internal/look", "engine/internal/replica", "engine/internal/settle"},
	"engine/edge":                       {"graveler", "graveler/committed", "object", "spill", "engine", "engine/internal/look", "engine/internal/settle"},
	"engine/enginetest":                 {"graveler", "object", "engine"},
	"api/lakefsfs/v1":                   {},
	"engine/remote":                     {"graveler", "object", "engine", "api/lakefsfs/v1"},
	"control":                           {"graveler", "engine"},
	"vfs":                               {"graveler", "object", "spill", "engine"}, // never an implementation of the engine
	"fs":                                {"graveler", "vfs"},
	"daemon":                            {"graveler", "graveler/committed", "object", "cache", "spill", "engine", "engine/local", "engine/edge", "engine/remote", "api/lakefsfs/v1", "control", "vfs", "fs", "nfs"},
	"nfs":                               {"graveler", "vfs", "nfs/xdr"},
	"nfs/xdr":                           {}, // knows nothing of files
	"nfs/nfstest":                       {"nfs/xdr"},
	"cmd/lakefsfs":                      {"graveler", "graveler/committed", "object", "engine", "engine/remote", "control", "daemon"},
	"bench":                             {"bench/nfsclient", "graveler", "graveler/committed", "object", "object/objecttest", "cache", "spill", "engine", "engine/local"},
	"bench/workload":                    {}, // knows nothing of what it measures
	"bench/loopback":                    {},
	"bench/nfsclient":                   {"nfs/xdr"}, // the words of RPC, and nothing of the server
	"bench/cluster":                     {"graveler", "object", "spill", "engine", "engine/local", "engine/remote", "internal/chaos"},
	"e2e":                               {"graveler", "internal/fixtures", "object/objecttest"},
	"e2e/nfs":                           {"internal/nfsvm", "internal/nfsvm/wire"},
	"e2e/nfs/battery":                   {"internal/fsx"}, // knows nothing of the server
	"e2e/chaos":                         {},
	"e2e/history":                       {}, // knows nothing of what it judges
	"internal/chaos":                    {},
	"internal/chaos/faultfs":            {},
	"internal/fixtures":                 {"graveler"},
	"internal/floors":                   {},
	"internal/fsx":                      {},
	"internal/nfsvm":                    {"internal/nfsvm/wire"},
	"internal/nfsvm/agent":              {"internal/nfsvm/wire"}, // the guest's first process
	"internal/nfsvm/wire":               {},
}

// owners are the libraries that one package alone may import, by prefix.
var owners = map[string][]string{
	"github.com/hashicorp/raft":             {"engine/internal/replica", "engine/internal/replica/wal"}, // nothing may bypass the log
	"github.com/cockroachdb/pebble/v2":      {"engine/internal/replica", "bench/cluster"},               // the latter to compare with it
	"github.com/cockroachdb/pebble/sstable": {"graveler/committed"},                                     // the format is known in one place
	"github.com/dgraph-io/ristretto":        {"cache"},
	"gocloud.dev":                           {"object"},
	"github.com/hanwen/go-fuse":             {"fs", "bench/loopback", "internal/chaos/faultfs"}, // to show what FUSE alone costs, and a disk that fails
	"github.com/anishathalye/porcupine":     {"e2e/history"},
	"github.com/spf13/viper":                {"daemon"},
	"github.com/spf13/cobra":                {"cmd/lakefsfs"},
}

func TestImports(t *testing.T) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		may, ok := allowed[name]
		if !ok {
			t.Errorf("package %s is not in the table", name)
		}
		seen[name] = true
		for _, imp := range p.Imports {
			if inner, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(may, inner) {
				t.Errorf("%s imports %s", name, inner)
			}
			for lib, who := range owners {
				if (imp == lib || strings.HasPrefix(imp, lib+"/")) && !slices.Contains(who, name) {
					t.Errorf("%s imports %s, which is %s's", name, imp, who)
				}
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("the table has %s, which is gone", name)
		}
	}
}
