// Package wire is what the virtual machine's agent and the tests on its host say to each other.
//
// The agent dials the host, says who it is by Hello, and waits for a Request on that connection; as soon as it has one it dials the
// next. It answers with Frames, the last of which has Done set. A connection that the host closes before ends what the request runs.
// All is gob, of two programs that were built together.
package wire

// Hello is the first word of the agent.
type Hello struct {
	// Token is what the kernel's command line gave, so that nobody else is taken for the guest.
	Token string
}

// Request is a program to run in the guest.
type Request struct {
	// Argv is the program, found on the guest's PATH, and its arguments.
	Argv []string
	// Dir is its working directory; empty is /.
	Dir string
	// Env is added to the guest's environment, as NAME=value.
	Env []string
	// Stdin is what it reads.
	Stdin []byte
}

// Frame is part of what a program does.
type Frame struct {
	// Stdout and Stderr are what it printed, as it printed it.
	Stdout, Stderr []byte
	// Done tells that it has ended, with Code: its exit code, 128 and the number of the signal that killed it, or 127 if it can't be
	// started, Stderr telling why.
	Done bool
	Code int
}
