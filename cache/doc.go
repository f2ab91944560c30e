// Package cache keeps what was read from object stores: New wraps an object.Store in one that reads each byte once.
//
// It holds immutable bytes only, so nothing is ever invalidated. Two tiers and the store make one read:
//
//	ReadAt → memory (a window of recent chunks, then ristretto) → disk (files of one chunk) → one shared fetch from the store
//
// The unit is a chunk of 1 MiB of an object; the last or only one is as short as the object. Memory and disk are bounded in
// bytes, and neither bound is exceeded at any moment (I1). What is being fetched counts in neither: that is at most
// Options.Concurrency objects of 8 MiB, or tables.
//
// Bytes are right or they aren't returned (I2):
//   - An object of up to 8 MiB whose MD5 is known is fetched whole and checked against it. If it differs it is fetched once
//     more, then it is Corrupt; wrong bytes are never kept. Where the store itself says that its tag of the object is no
//     checksum (S3 with KMS keys), the tag is not held against the bytes.
//   - A larger object, or one without an MD5 (uploaded in parts), is fetched by chunks, which only have their length checked:
//     for its bytes the store's own checks and those of TLS have to do.
//   - Tables are fetched whole and unchecked: who parses them checks them against their id.
//   - Files of the disk tier end in a checksum of their own; one that fails it, or is cut short, is dropped and fetched anew.
//
// Readers of one chunk share one fetch, which goes on until none of them wants it any more (I3). A reader that goes through an
// object has its next chunks fetched ahead.
//
// A store of local files (object.Local) is read directly, and stays an object.Local. Its files of up to 8 MiB are checked
// against their MD5 when they are first touched, by ReadAt or Path, and remembered as checked, within a bound.
//
// Not kept at all: objects asked for as Fresh, those whose size isn't known and that are no tables, and what else lies under
// _lakefs/, where lakeFS rewrites some.
//
// Locks are leaves: none is held while another is taken or during I/O.
package cache
