// Package config is the only reader of the environment. [Config] has one field for each variable. Its tags,
// and [Defaults], are the source of the table in the README, of `wxkeeper env`, and of what [Load] accepts.
// Its methods make the configurations of the packages below: [Config.Worker], [Config.WeChat], [Config.NATS],
// [Config.Embedded].
//
// An empty variable counts as not set. An error is a [setting.Error]: one line that names the variable, what
// is wrong and what would be right, and never shows a secret.
package config
