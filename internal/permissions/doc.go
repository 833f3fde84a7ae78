// Package permissions knows what each role needs of NATS, and writes it as configuration of nats-server: all that the role
// does passes, and nothing else. It is pure text; the tests of cmd/wxkeeper run what it prints on a real server, and
// docs/security.md, which shows it, says what a role can do beyond its list.
package permissions
