// Package listen has what all HTTP servers of wxkeeper share: time limits, a stop that waits, and [Guard], which
// protects pages from what web sites can make a browser do.
package listen
