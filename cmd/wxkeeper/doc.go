// Command wxkeeper keeps the credentials of WeChat accounts fresh, hands them out through NATS, and resolves
// scanned code tickets into marketing codes.
//
// Each verb has one file, named after it. A verb turns flags and environment into the configuration of a
// package below, and runs it until its context ends. Only internal/config reads the environment. exit.go has
// the exit codes.
package main
