package config

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/setting"
)

// The words of WXKEEPER_BUCKET_STORAGE.
const (
	storageFile   = "file"
	storageMemory = "memory"
)

// size is a number of bytes.
type size int64

// units are the units of nats-server's configuration.
var units = map[string]int64{
	"": 1, "K": 1e3, "KB": 1 << 10, "KIB": 1 << 10, "M": 1e6, "MB": 1 << 20, "MIB": 1 << 20, "G": 1e9, "GB": 1 << 30,
	"GIB": 1 << 30, "T": 1e12, "TB": 1 << 40, "TIB": 1 << 40,
}

var sizePattern = regexp.MustCompile(`^([0-9]+) ?([A-Za-z]*)$`)

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	m := sizePattern.FindSubmatch(text)
	if m == nil {
		return fmt.Errorf("%q is not a size", text)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	unit, ok := units[strings.ToUpper(string(m[2]))]
	if err != nil || !ok || n > math.MaxInt64/unit {
		return fmt.Errorf("%q is not a size", text)
	}
	*s = size(n * unit)
	return nil
}

// leastBytes is the least size of a bucket: it has room for the credentials of some tens of accounts. A full bucket
// refuses every refresh.
const leastBytes = 1 << 20

// tag matches a tag of a NATS server.
var tag = regexp.MustCompile(`^[^\s,]+$`)

// checkBuckets checks the settings of the buckets.
func (c *Config) checkBuckets() error {
	if c.MaxBytes > 0 && c.MaxBytes < leastBytes {
		return setting.Errorf("WXKEEPER_BUCKET_MAX_BYTES",
			"%d bytes are too few, and a full bucket refuses every refresh: write at least 1MB, or 0 for no limit", c.MaxBytes)
	}
	if c.Storage != storageFile && c.Storage != storageMemory {
		return setting.Errorf("WXKEEPER_BUCKET_STORAGE", "%q is not one of %s, %s", c.Storage, storageFile, storageMemory)
	}
	if c.JSDomain != "" && !token.MatchString(c.JSDomain) {
		return setting.Errorf("WXKEEPER_JS_DOMAIN", "%q is not the name of a domain: 1 to 64 letters, digits, _ and -",
			c.JSDomain)
	}
	c.PlacementTags = trimAll(c.PlacementTags)
	for _, t := range c.PlacementTags {
		if !tag.MatchString(t) {
			return setting.Errorf("WXKEEPER_BUCKET_PLACEMENT_TAGS", "%q is not a tag: it has white space", t)
		}
	}
	return nil
}

// CheckEmbedded returns an error if a variable of the buckets contradicts the embedded NATS server, which a worker
// without NATS_URL starts. Other verbs may have these variables without NATS_URL.
func (c Config) CheckEmbedded() error {
	for _, v := range []named{
		{"WXKEEPER_JS_DOMAIN", c.JSDomain}, {"WXKEEPER_BUCKET_PLACEMENT_TAGS", strings.Join(c.PlacementTags, ",")},
	} {
		if c.NATSURL == "" && v.value != "" {
			return setting.Errorf(v.name,
				"the embedded NATS server has neither a domain nor tags: set NATS_URL too, or unset it")
		}
	}
	return nil
}
