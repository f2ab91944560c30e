// Package graveler is the vocabulary and the law of versioned data: what a repository, a ref, a commit, an entry and a
// change are, and the pure algorithms over them. It does no I/O; every other package speaks its words.
//
//	repository         a named set of refs and commits over one storage namespace (an object-store URL)
//	ref                an expression that names a version: a branch, a tag, a commit id or prefix, with modifiers (~ ^ @ $ @{time})
//	branch             a movable ref: a head commit, overlaid with what is staged
//	tag                a fixed ref: a commit
//	commit             a metarange with a message, parents and a time; its id is the hash of these
//	metarange          the list of a commit's ranges, an SSTable
//	range              a run of entries in key order, an SSTable; shared between commits by id
//	entry              what a path holds: address, size, checksum, metadata
//	staging            what was changed on a branch since its head, by token
//	staging token      names one layer of staging; the open one takes writes, sealed ones are being committed
//	tombstone          a staged removal: hides the path in all layers below
//	pending            a staged entry whose bytes are still in a local spill file
//	settle             upload what is pending, and name the object in its place
package graveler
