// Package permissions knows what each role needs of NATS, and prints it as configuration of nats-server:
// everything that the role does is allowed, and nothing else. The package only makes text. The tests of
// cmd/wxkeeper run the printed configuration on a real server. docs/security.md shows it, and says what each
// role could do with it.
package permissions
