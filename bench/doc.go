// Bench compares wxkeeper with what people use instead, on the same work, as processes on one machine:
//
//	make bench-peers                         # all rows: about 25 minutes
//	make bench-peers PEERS_FLAGS=-smoke      # a short run that shows that everything works: under two minutes
//	make bench-peers PEERS_FLAGS='-rows ag'  # some rows
//
// It prints one Markdown table. docs/performance.md says what the rows are, and has a table.
//
// The runner (this package) has the simulated WeChat in its own process, so that it can break it at the right moment.
// Everything else is a process: services, token servers, relays and loads are this program again, with a role as the
// first argument. Systems that are compared run at the same time, each with its own simulated WeChat.
package main
