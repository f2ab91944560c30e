// Package chaos runs a cluster of real processes of the real program on one machine and does to it what happens to machines: it kills and
// stops processes, cuts, slows and breaks the links between them and their clients, fills disks, makes fsync fail and takes power away.
//
// All that nodes and clients send goes through a Net, which sees who is at which end. A node's data directory lies on a Disk: a small
// file system of its own under a FUSE pass-through (command faultfs) that knows what was synced.
//
// What isn't injected: damage of bytes that were synced, and messages that arrive twice or changed, which TCP and TLS exclude.
package chaos
