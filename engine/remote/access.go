package remote

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/metadata"

	pb "github.com/lakefsfs/lakefsfs/api/lakefsfs/v1"
	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Role is what a client may do.
type Role uint8

// Roles, each of which may do what those before it may.
const (
	Nobody   Role = iota
	Reader        // ro: reads
	Writer        // rw: changes what is in repositories
	Operator      // admin: makes and deletes repositories, rules, members of the cluster; collects garbage
)

var roles = map[string]Role{"ro": Reader, "rw": Writer, "admin": Operator}

// need tells the role that each method needs. A method that is not here needs Operator.
var need = map[string]Role{
	pb.Repositories_GetRepository_FullMethodName: Reader, pb.Repositories_ListRepositories_FullMethodName: Reader,
	pb.Repositories_CreateRepository_FullMethodName: Operator, pb.Repositories_AttachRepository_FullMethodName: Operator,
	pb.Repositories_DeleteRepository_FullMethodName: Operator, pb.Repositories_DumpRefs_FullMethodName: Writer,

	pb.Refs_Resolve_FullMethodName: Reader, pb.Refs_ListBranches_FullMethodName: Reader, pb.Refs_ListTags_FullMethodName: Reader, pb.Refs_Rules_FullMethodName: Reader,
	pb.Refs_CreateBranch_FullMethodName: Writer, pb.Refs_DeleteBranch_FullMethodName: Writer, pb.Refs_RenameBranch_FullMethodName: Writer,
	pb.Refs_SetHead_FullMethodName: Writer, pb.Refs_CreateTag_FullMethodName: Writer, pb.Refs_DeleteTag_FullMethodName: Writer,
	pb.Refs_SetRules_FullMethodName: Operator, // or a rule would bind nobody

	pb.Entries_Stat_FullMethodName: Reader, pb.Entries_Lookup_FullMethodName: Reader, pb.Entries_Cuts_FullMethodName: Reader, pb.Entries_List_FullMethodName: Reader,
	pb.Entries_Stage_FullMethodName: Writer, pb.Entries_StageMany_FullMethodName: Writer, pb.Entries_Move_FullMethodName: Writer,
	pb.Entries_Exchange_FullMethodName: Writer, pb.Entries_Reset_FullMethodName: Writer,

	pb.Versions_Log_FullMethodName: Reader, pb.Versions_Diff_FullMethodName: Reader, pb.Versions_Status_FullMethodName: Reader,
	pb.Versions_MergeBase_FullMethodName: Reader, pb.Versions_Check_FullMethodName: Reader,
	pb.Versions_Commit_FullMethodName: Writer, pb.Versions_Merge_FullMethodName: Writer, pb.Versions_Revert_FullMethodName: Writer,
	pb.Versions_CherryPick_FullMethodName:     Writer,
	pb.Versions_Import_FullMethodName:         Operator, // it reads any URL that the server can
	pb.Versions_CollectGarbage_FullMethodName: Operator,

	pb.Holders_Named_FullMethodName: Writer, pb.Holders_Settle_FullMethodName: Writer, pb.Holders_Secure_FullMethodName: Writer, pb.Holders_Hold_FullMethodName: Writer,
	pb.Sessions_OpenSession_FullMethodName: Writer,
	pb.Changes_Watch_FullMethodName:        Reader, pb.Changes_Sync_FullMethodName: Reader,

	pb.Objects_ReadObject_FullMethodName: Reader, pb.Objects_StatObject_FullMethodName: Reader, pb.Objects_ListObjects_FullMethodName: Reader,
	pb.Objects_PutObject_FullMethodName: Writer, pb.Objects_DeleteObject_FullMethodName: Operator,

	pb.Cluster_Members_FullMethodName: Reader, pb.Cluster_AddMember_FullMethodName: Operator, pb.Cluster_Promote_FullMethodName: Operator,
	pb.Cluster_RemoveMember_FullMethodName: Operator, pb.Cluster_TransferLeadership_FullMethodName: Operator, pb.Cluster_Snapshot_FullMethodName: Operator,

	// Tools look here before they know who they are.
	"/grpc.health.v1.Health/Check": Nobody, "/grpc.health.v1.Health/Watch": Nobody, "/grpc.health.v1.Health/List": Nobody,
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Reader, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Reader,
}

func needOf(method string) Role {
	if r, ok := need[method]; ok {
		return r
	}
	return Operator
}

// Tokens are the clients that a server knows, from a file with a line for each: its token, its name, and ro, rw or admin. Empty lines
// and those that begin with # are passed over. The file is read again when it changes; one that can't be read then, or has a bad line,
// leaves in force what was in it before, and is complained of.
type Tokens struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	looked  time.Time
	stamp   fileStamp
	clients []tokenClient
}

type fileStamp struct {
	modified time.Time
	size     int64
}

type tokenClient struct {
	hash [sha256.Size]byte
	name string
	role Role
}

// OpenTokens reads a file of tokens.
func OpenTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w: %w", err, graveler.Invalid)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("tokens: others can read %s (%o); chmod 600 it: %w", path, fi.Mode().Perm(), graveler.Invalid)
	}
	if err := t.load(fi); err != nil {
		return nil, err
	}
	return t, nil
}

func (t *Tokens) load(fi os.FileInfo) error {
	text, err := os.ReadFile(t.path)
	if err != nil {
		return fmt.Errorf("tokens: %w: %w", err, graveler.Invalid)
	}
	clients, err := parseTokens(string(text))
	if err != nil {
		return fmt.Errorf("tokens %s: %w", t.path, err)
	}
	t.clients, t.stamp = clients, fileStamp{fi.ModTime(), fi.Size()}
	return nil
}

// minToken is the shortest token that is taken, in bytes.
const minToken = 16

// parseTokens reads lines of tokens. Errors name the line and never the token.
func parseTokens(text string) ([]tokenClient, error) {
	var out []tokenClient
	names := map[string]bool{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		bad := func(why string) error { return fmt.Errorf("line %d: %s: %w", n, why, graveler.Invalid) }
		if len(f) != 3 {
			return nil, bad("a line is a token, a name, and ro, rw or admin")
		}
		role, ok := roles[f[2]]
		if !ok {
			return nil, bad("a client is ro, rw or admin")
		}
		if len(f[0]) < minToken {
			return nil, bad(fmt.Sprintf("a token has %d characters at least", minToken))
		}
		c := tokenClient{sha256.Sum256([]byte(f[0])), f[1], role}
		for _, x := range out {
			if x.hash == c.hash {
				return nil, bad("the token is another client's too")
			}
		}
		if names[f[1]] {
			return nil, bad("there is another client of that name")
		}
		names[f[1]] = true
		out = append(out, c)
	}
	return out, nil
}

// who tells whose a token is.
func (t *Tokens) who(token string) (string, Role) {
	t.mu.Lock()
	if now := time.Now(); now.Sub(t.looked) > time.Second {
		t.looked = now
		if fi, err := os.Stat(t.path); err != nil {
			t.log.Error("the tokens' file is gone; what it held is still in force", "err", err)
		} else if (fileStamp{fi.ModTime(), fi.Size()}) != t.stamp {
			if err := t.load(fi); err != nil {
				t.log.Error("the tokens' file changed and can't be used; what it held before is still in force", "err", err)
				t.stamp = fileStamp{fi.ModTime(), fi.Size()}
			} else {
				t.log.Info("read the tokens again", "clients", len(t.clients))
			}
		}
	}
	clients := t.clients
	t.mu.Unlock()
	hash := sha256.Sum256([]byte(token))
	name, role := "", Nobody
	for i := range clients { // all, so that the time says nothing
		if subtle.ConstantTimeCompare(hash[:], clients[i].hash[:]) == 1 {
			name, role = clients[i].name, clients[i].role
		}
	}
	return name, role
}

// caller is who makes a call.
type caller struct {
	name string
	role Role
}

type callerKey struct{}

// admit tells who makes a call, or refuses it.
func (t *Tokens) admit(ctx context.Context, method string) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	var c caller
	for _, a := range md.Get("authorization") {
		if token, ok := strings.CutPrefix(a, "Bearer "); ok {
			c.name, c.role = t.who(token)
		}
	}
	switch n := needOf(method); {
	case c.role >= n:
		return context.WithValue(ctx, callerKey{}, c), nil
	case c.role == Nobody:
		return ctx, fmt.Errorf("this server wants a token that it knows: give one with --token-file or LAKEFSFS_TOKEN: %w", graveler.Denied)
	default:
		return ctx, fmt.Errorf("client %s may not call %s: %w", c.name, method[strings.LastIndexByte(method, '/')+1:], graveler.Denied)
	}
}

// mayRead refuses a client that is no operator what the server itself could read beside the objects: its own files.
func mayRead(ctx context.Context, o object.Object) error {
	c, ok := ctx.Value(callerKey{}).(caller)
	if !ok || c.role >= Operator || o.Type == graveler.AddressRelative {
		return nil
	}
	if scheme, _, ok := strings.Cut(o.Address, "://"); ok && (strings.EqualFold(scheme, "file") || strings.EqualFold(scheme, "local")) {
		return fmt.Errorf("object %q is a file of the server's own: %w", o.Address, graveler.Denied)
	}
	return nil
}
