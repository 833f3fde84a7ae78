package permissions

import (
	"slices"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
	"github.com/wxkeeper/wxkeeper/messages"
)

// Exports returns what consumers of the embedded server see of the workers' account: every request, because all
// consumers have one token; the requests to which every worker replies; and the messages that they may receive.
func Exports(prefix, name string) (requests, surveys, published []string) {
	n := names{prefix: prefix, bucket: name}
	for _, r := range messages.Subjects {
		requests = append(requests, n.endpoint(r)...)
	}
	requests = append(requests, bucket.DirectGetAPI(name, bucket.AllKeys))
	return requests, slices.Clone(discovery), []string{messages.PublishedSubject(prefix, "*", "*"), n.events()}
}
