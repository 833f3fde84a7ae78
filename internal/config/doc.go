// Package config is the only reader of the environment. [Config] has one field for each variable; its tags are the
// source of the table in the README, of `wxkeeper env`, and of what Load accepts.
//
// An empty variable counts as not set. An error is one line that names the variable, says what is wrong and what would
// be right, and never shows a secret.
package config
