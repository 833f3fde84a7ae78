// Package proc starts the processes that are measured, and reads from /proc what they use. It needs Linux.
package proc
