// Package permissions has the NATS permissions of each role, and writes them as configuration of nats-server:
// everything that the role does is allowed, and nothing else. The package only makes text. The tests of
// cmd/wxkeeper run the written configuration on a real server. docs/security.md shows it, and describes what an
// attacker could do with each role.
package permissions
