// Package committed is committed data: ranges and metaranges in lakeFS's on-disk format. It is the only place that knows
// SSTables.
//
// A table is an SSTable (RocksDBv2, Snappy) under _lakefs/<id>. Each record's value is an identity and data, both with a
// length before them. A range holds entries by path; a metarange holds one record a range, by its largest path. A table's
// id is the SHA-256 of its records and its user properties, so equal content has equal ids, and a commit shares all the
// ranges that it did not touch with its parent. docs/format.md has the bytes.
package committed
