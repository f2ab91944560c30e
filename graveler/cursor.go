package graveler

// Cursor walks the records of one layer (a metarange, a staging token, an overlay) in ascending byte order of paths.
// A new Cursor stands before the first record. It is used by one goroutine.
type Cursor interface {
	// Next moves to the next record. False at the end or on an error; see Err.
	Next() bool
	// SeekGE moves, in either direction, to the first record whose path is at or after path. False as in Next. A Next
	// after it moves on from there.
	SeekGE(path string) bool
	// Path is the current record's path.
	Path() string
	// Change is the current record; Remove marks a tombstone. It is valid until the next move.
	Change() (*Change, error)
	// Err is the error that ended the walk, nil at a plain end.
	Err() error
	// Close frees what the cursor holds. It must be called once, after an error too.
	Close() error
}

// Encoded is implemented by cursors that have their records in encoded form, which is far cheaper to copy than the decoded one.
type Encoded interface {
	// Encoded is the current record: its entry as committed.EncodeEntry has it without Pending, valid until the next move; or
	// remove. ok is false if this record isn't to be had so: then Change has it.
	Encoded() (entry []byte, pending ContentID, remove, ok bool, err error)
}
