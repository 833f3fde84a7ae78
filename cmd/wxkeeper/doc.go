// Command wxkeeper keeps the credentials of WeChat accounts fresh, hands them out through NATS, and resolves scanned
// code tickets into marketing codes.
//
// One file a verb: flags and environment become a Config, and a Config runs until its context ends. The environment is
// read by internal/config alone; exit.go has the exit codes.
package main
