package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"

	"github.com/lakefsfs/lakefsfs/graveler"
	"github.com/lakefsfs/lakefsfs/object"
)

// Config is all that can be configured. Keys are read from the file, then LAKEFSFS_* environment variables (a dot is an
// underscore: cache.memory is LAKEFSFS_CACHE_MEMORY), then flags; the later wins. docs/config.md lists them.
type Config struct {
	Data      string         `mapstructure:"data" doc:"directory of metadata, spilled bytes, cache and socket"`
	Listen    string         `mapstructure:"listen" doc:"socket that the command line talks to; empty is DATA/lakefsfs.sock"`
	Namespace string         `mapstructure:"namespace" doc:"storage URL under which repositories made without one get theirs; empty is file://DATA/objects"`
	LocalRoot string         `mapstructure:"local_root" doc:"directory that local:// addresses of attached lakeFS namespaces lie in; empty is the directory above the namespace"`
	Cache     CacheConfig    `mapstructure:"cache"`
	Store     StoreConfig    `mapstructure:"store"`
	Mounts    []MountConfig  `mapstructure:"mounts" doc:"what is mounted at the start"`
	NFS       NFSConfig      `mapstructure:"nfs"`
	Exports   []ExportConfig `mapstructure:"exports" doc:"what NFS clients may mount"`
	Sync      SyncConfig     `mapstructure:"sync"`
	Engine    EngineConfig   `mapstructure:"engine"`
	Cluster   ClusterConfig  `mapstructure:"cluster"`
	Serve     ServeConfig    `mapstructure:"serve"`
	TLS       TLSConfig      `mapstructure:"tls"`
	Log       LogConfig      `mapstructure:"log"`
}

// CacheConfig bounds the caches.
type CacheConfig struct {
	Memory    int64  `mapstructure:"memory" doc:"bytes of memory for tables and small objects"`
	Disk      int64  `mapstructure:"disk" doc:"bytes of disk for chunks of objects; 0 is none. Local objects are never copied"`
	Dir       string `mapstructure:"dir" doc:"directory of the disk cache; empty is DATA/cache"`
	Nodes     int64  `mapstructure:"nodes" doc:"bytes of memory, of each mount, for the names and files that the kernel knows; the kernel is asked to forget beyond it"`
	ReadAhead int64  `mapstructure:"read_ahead" doc:"bytes that a sequential reader is run ahead of"`
}

// StoreConfig bounds how long an object store is waited for: a request, at most, for both together.
type StoreConfig struct {
	Timeout time.Duration `mapstructure:"timeout" doc:"how long one request to an object store may take before it is given up"`
	Retry   time.Duration `mapstructure:"retry" doc:"how long a request is sent again while the object store is unavailable"`
}

// MountConfig is one mount.
type MountConfig struct {
	Place       string `mapstructure:"place" doc:"what to mount: empty for everything, a repository, or repo/@ref"`
	Dir         string `mapstructure:"dir" doc:"mount point"`
	ReadOnly    bool   `mapstructure:"read_only" doc:"refuse all changes"`
	AllowOther  bool   `mapstructure:"allow_other" doc:"let other users in"`
	SyncOnClose bool   `mapstructure:"sync_on_close" doc:"close returns when the bytes survive a power cut"`
}

// SyncConfig says when what was written reaches the disk without being asked.
type SyncConfig struct {
	Every  time.Duration `mapstructure:"every" doc:"the log of changes is made durable at least this often"`
	Upload bool          `mapstructure:"upload" doc:"where the metadata is elsewhere, fsync returns when the bytes are on the object store, not only on this machine's disk"`
}

// EngineConfig makes a daemon one without metadata of its own.
type EngineConfig struct {
	Address   string        `mapstructure:"address" doc:"servers that keep the metadata, HOST:PORT separated by commas; empty: this daemon keeps it"`
	TokenFile string        `mapstructure:"token_file" doc:"file with the token that the servers know this machine by"`
	Retry     time.Duration `mapstructure:"retry" doc:"how long servers are asked again that don't answer, before a call fails"`
	Objects   string        `mapstructure:"objects" doc:"how a daemon without metadata reaches objects: direct, through the servers, or auto: direct but for file:// namespaces"`
}

// ClusterConfig makes a daemon a node of a cluster.
type ClusterConfig struct {
	Listen        string        `mapstructure:"listen" doc:"HOST:PORT for the other nodes of a cluster; empty: this daemon is none"`
	Advertise     string        `mapstructure:"advertise" doc:"HOST:PORT that the other nodes reach this one at; empty is cluster.listen"`
	Join          string        `mapstructure:"join" doc:"serve address of members of a cluster, HOST:PORT separated by commas, that a node with an empty data directory joins"`
	Bootstrap     bool          `mapstructure:"bootstrap" doc:"this node may begin a cluster: with an empty data directory, or that of a daemon that was none"`
	Heartbeat     time.Duration `mapstructure:"heartbeat" doc:"how long a leader may be silent before the others elect another"`
	RemoveDead    time.Duration `mapstructure:"remove_dead" doc:"after how long without contact a node is removed; 0 is never"`
	Snapshots     string        `mapstructure:"snapshots" doc:"storage URL that snapshots of the metadata go to; empty is nowhere"`
	SnapshotEvery time.Duration `mapstructure:"snapshot_every" doc:"how often, if anything changed"`
}

// ServeConfig lets clients of other machines in.
type ServeConfig struct {
	Listen    string `mapstructure:"listen" doc:"HOST:PORT for clients; empty: the socket alone"`
	Advertise string `mapstructure:"advertise" doc:"HOST:PORT that clients reach this daemon at; empty is serve.listen"`
	Tokens    string `mapstructure:"tokens" doc:"file of the clients that may call, a line each: TOKEN NAME ro|rw|admin"`
}

func (c *ServeConfig) address() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}

// TLSConfig is what connections between machines are made with.
type TLSConfig struct {
	CA       string `mapstructure:"ca" doc:"PEM file of the authorities that the other side's certificate is of"`
	Cert     string `mapstructure:"cert" doc:"PEM file of this machine's certificate"`
	Key      string `mapstructure:"key" doc:"PEM file of its key"`
	Insecure bool   `mapstructure:"insecure" doc:"speak without TLS, on loopback addresses alone"`
}

// LogConfig says what is logged.
type LogConfig struct {
	Level  string `mapstructure:"level" doc:"debug, info, warn or error"`
	Format string `mapstructure:"format" doc:"text, json, or auto: text on a terminal"`
}

// DefaultConfig is the configuration of a user who says nothing.
func DefaultConfig() Config {
	return Config{
		Data:  DefaultData(),
		Cache: CacheConfig{Memory: 256 << 20, Disk: 10 << 30, Nodes: 128 << 20, ReadAhead: 16 << 20},
		Store: StoreConfig{Timeout: 30 * time.Second, Retry: 30 * time.Second},
		Sync:  SyncConfig{Every: 200 * time.Millisecond, Upload: true},

		Engine:  EngineConfig{Objects: "auto", Retry: 30 * time.Second},
		Cluster: ClusterConfig{Heartbeat: 500 * time.Millisecond, SnapshotEvery: 10 * time.Minute},
		Log:     LogConfig{Level: "info", Format: "auto"},
		NFS:     NFSConfig{Connections: 2048, Memory: 256 << 20, Nodes: 256 << 10},
	}
}

// DefaultData is the data directory of a user who says nothing.
func DefaultData() string {
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "lakefsfs")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "/var/lib/lakefsfs"
	}
	return filepath.Join(home, ".local", "share", "lakefsfs")
}

// Socket is the address that the daemon listens on.
func (c *Config) Socket() string {
	if c.Listen != "" {
		return c.Listen
	}
	return "unix://" + filepath.Join(c.Data, "lakefsfs.sock")
}

// Validate reports, with words, what can't be meant.
func (c *Config) Validate() error {
	bad := func(key, why string) error { return fmt.Errorf("configuration: %s %s: %w", key, why, graveler.Invalid) }
	if c.Data == "" {
		return bad("data", "is empty; name a directory")
	}
	if !strings.HasPrefix(c.Socket(), "unix://") {
		return bad("listen", fmt.Sprintf("%q is not unix:// and a path", c.Listen))
	}
	if n := len(strings.TrimPrefix(c.Socket(), "unix://")); n > 107 {
		return bad("listen", fmt.Sprintf("has a socket path of %d bytes, and the system takes 107; set it to a shorter one", n))
	}
	if c.Namespace != "" {
		if err := object.ValidateURL(c.Namespace); err != nil {
			return fmt.Errorf("configuration: namespace: %w", err)
		}
	}
	if c.Cache.Memory < 1<<20 {
		return bad("cache.memory", fmt.Sprintf("is %d bytes; give at least 1 MiB", c.Cache.Memory))
	}
	if c.Cache.Disk < 0 {
		return bad("cache.disk", "is negative; 0 is none")
	}
	if c.Cache.Nodes < 1<<20 {
		return bad("cache.nodes", fmt.Sprintf("is %d bytes; give at least 1 MiB", c.Cache.Nodes))
	}
	if c.Store.Timeout < time.Millisecond || c.Store.Timeout > time.Hour {
		return bad("store.timeout", fmt.Sprintf("is %s; give 1ms to 1h", c.Store.Timeout))
	}
	if c.Store.Retry < 0 || c.Store.Retry > time.Hour {
		return bad("store.retry", fmt.Sprintf("is %s; give 0 to 1h", c.Store.Retry))
	}
	if c.Sync.Every < time.Millisecond || c.Sync.Every > time.Minute {
		return bad("sync.every", fmt.Sprintf("is %s; give 1ms to 1m", c.Sync.Every))
	}
	if !slices.Contains([]string{"auto", "direct", "through"}, c.Engine.Objects) {
		return bad("engine.objects", fmt.Sprintf("is %q; give auto, direct or through", c.Engine.Objects))
	}
	if c.Engine.Retry < time.Millisecond || c.Engine.Retry > time.Hour {
		return bad("engine.retry", fmt.Sprintf("is %s; give 1ms to 1h", c.Engine.Retry))
	}
	if err := c.validateCluster(bad); err != nil {
		return err
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level) {
		return bad("log.level", fmt.Sprintf("is %q; give debug, info, warn or error", c.Log.Level))
	}
	if !slices.Contains([]string{"auto", "text", "json"}, c.Log.Format) {
		return bad("log.format", fmt.Sprintf("is %q; give auto, text or json", c.Log.Format))
	}
	for i, m := range c.Mounts {
		if m.Dir == "" {
			return bad(fmt.Sprintf("mounts[%d].dir", i), "is empty; name a directory")
		}
		if m.Place != "" {
			if _, err := graveler.ParsePlace(m.Place); err != nil {
				return fmt.Errorf("configuration: mounts[%d]: %w", i, err)
			}
		}
	}
	return c.validateNFS()
}

// validateCluster is Validate of what goes between machines.
func (c *Config) validateCluster(bad func(key, why string) error) error {
	for _, a := range [][2]string{
		{"cluster.listen", c.Cluster.Listen}, {"cluster.advertise", c.Cluster.Advertise}, {"serve.listen", c.Serve.Listen}, {"serve.advertise", c.Serve.Advertise},
	} {
		if _, _, err := net.SplitHostPort(a[1]); a[1] != "" && err != nil {
			return bad(a[0], fmt.Sprintf("is %q; give HOST:PORT", a[1]))
		}
	}
	if c.Serve.Listen != "" && c.Serve.Tokens == "" && !c.TLS.Insecure {
		return bad("serve.tokens", "is empty, and clients of other machines are known by their tokens; name a file with lines TOKEN NAME ro|rw|admin")
	}
	if c.Engine.Address != "" && c.Serve.Listen != "" {
		return bad("engine.address", "is set, and so is serve.listen: a daemon keeps metadata or asks for it")
	}
	if host, _, _ := net.SplitHostPort(c.Serve.address()); c.Cluster.Listen != "" && (host == "" || net.ParseIP(host) != nil && net.ParseIP(host).IsUnspecified()) {
		return bad("serve.advertise", "doesn't tell clients of the cluster where this node is; give a HOST:PORT that they reach it at")
	}
	if c.Cluster.Listen == "" && (c.Cluster.Join != "" || c.Cluster.Bootstrap) {
		return bad("cluster.listen", "is empty, and a node of a cluster needs it; give HOST:PORT")
	}
	if c.Cluster.Join != "" && c.Cluster.Bootstrap {
		return bad("cluster.join", "is set, and so is cluster.bootstrap: a node begins a cluster or joins one")
	}
	if c.Engine.Address != "" && c.Cluster.Listen != "" {
		return bad("engine.address", "is set, and so is cluster.listen: a daemon keeps metadata or asks for it")
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		return bad("tls.cert", "and tls.key go together; give both")
	}
	if c.TLS.Insecure && c.TLS.Cert != "" {
		return bad("tls.insecure", "is set, and so is tls.cert; give one of them")
	}
	if (c.Cluster.Listen != "" || c.Serve.Listen != "") && c.TLS.Cert == "" && !c.TLS.Insecure {
		return bad("tls.cert", "is empty, and other machines are spoken to with TLS; give tls.cert, tls.key and tls.ca (lakefsfs cluster certs makes them)")
	}
	if c.Cluster.Listen != "" && c.TLS.Cert != "" && c.TLS.CA == "" {
		return bad("tls.ca", "is empty, and nodes know each other by it")
	}
	if c.Cluster.Heartbeat < 20*time.Millisecond || c.Cluster.Heartbeat > time.Minute {
		return bad("cluster.heartbeat", fmt.Sprintf("is %s; give 20ms to 1m", c.Cluster.Heartbeat))
	}
	if c.Cluster.RemoveDead != 0 && c.Cluster.RemoveDead < 10*c.Cluster.Heartbeat {
		return bad("cluster.remove_dead", fmt.Sprintf("is %s; give 0, or at least ten times cluster.heartbeat", c.Cluster.RemoveDead))
	}
	if c.Cluster.SnapshotEvery < time.Second {
		return bad("cluster.snapshot_every", fmt.Sprintf("is %s; give at least 1s", c.Cluster.SnapshotEvery))
	}
	if c.Cluster.Snapshots != "" {
		if err := object.ValidateURL(c.Cluster.Snapshots); err != nil {
			return fmt.Errorf("configuration: cluster.snapshots: %w", err)
		}
	}
	return nil
}

// Key is one configuration key.
type Key struct {
	Name    string
	Default any
	Doc     string
}

// Keys lists all keys.
func Keys() []Key {
	var out []Key
	var walk func(prefix string, v reflect.Value)
	walk = func(prefix string, v reflect.Value) {
		for i := range v.NumField() {
			f := v.Type().Field(i)
			name := prefix + f.Tag.Get("mapstructure")
			if f.Type.Kind() == reflect.Struct {
				walk(name+".", v.Field(i))
				continue
			}
			out = append(out, Key{name, v.Field(i).Interface(), f.Tag.Get("doc")})
		}
	}
	walk("", reflect.ValueOf(DefaultConfig()))
	return out
}

// envPrefix is before every environment variable; envOther are those of the command line.
const envPrefix = "LAKEFSFS_"

var envOther = []string{"LAKEFSFS_SERVER", "LAKEFSFS_CONFIG", "LAKEFSFS_TOKEN", "LAKEFSFS_TOKEN_FILE", "LAKEFSFS_CA"}

// Load reads the configuration: file if it is not "", the environment, then flags by key. A key that doesn't exist is an error
// that names the nearest one.
func Load(file string, flags map[string]any) (Config, error) {
	v := viper.New()
	c := DefaultConfig()
	keys := Keys()
	known := map[string]bool{}
	for _, k := range keys {
		known[k.Name] = true
		v.SetDefault(k.Name, k.Default)
	}
	if file != "" {
		v.SetConfigFile(file)
		if err := v.ReadInConfig(); err != nil {
			return c, fmt.Errorf("configuration file %s: %v: %w", file, err, graveler.Invalid)
		}
		for _, k := range v.AllKeys() {
			if !known[k] {
				return c, unknownKey(file, k, keys)
			}
		}
	}
	env := map[string]string{}
	for _, k := range keys {
		env[envPrefix+strings.ToUpper(strings.ReplaceAll(k.Name, ".", "_"))] = k.Name
	}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, envPrefix) || slices.Contains(envOther, name) || strings.HasPrefix(name, envPrefix+"TEST") || name == envPrefix+"FIXTURES" {
			continue
		}
		k, ok := env[name]
		if !ok || k == "mounts" || k == "exports" {
			return c, unknownKey("environment", strings.ToLower(strings.TrimPrefix(name, envPrefix)), keys)
		}
		v.Set(k, value)
	}
	for k, value := range flags {
		v.Set(k, value)
	}
	err := v.UnmarshalExact(&c, viper.DecodeHook(mapstructure.StringToTimeDurationHookFunc()))
	if err != nil {
		return c, fmt.Errorf("configuration: %s: %w", strings.Join(strings.Fields(err.Error()), " "), graveler.Invalid)
	}
	if c.Data != "" {
		if c.Data, err = filepath.Abs(c.Data); err != nil {
			return c, err
		}
	}
	return c, c.Validate()
}

func unknownKey(where, key string, keys []Key) error {
	best, dist := "", 1<<30
	for _, k := range keys {
		name := k.Name
		if d := distance(strings.ReplaceAll(key, "_", "."), strings.ReplaceAll(name, "_", ".")); d < dist {
			best, dist = name, d
		}
	}
	return fmt.Errorf("configuration (%s): there is no key %q; did you mean %q?: %w", where, key, best, graveler.Invalid)
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			prev, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, prev+cost)
		}
	}
	return row[len(b)]
}
