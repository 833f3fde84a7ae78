package wechattest

// shanghai is the offset of Asia/Shanghai, which has had no summer time since 1991. A quota of a day is
// assumed to begin there at midnight (docs/wechat-api.md#quotas).
const shanghai = 8 * 60 * 60

// quota counts successes in a window of the clock. The lock of its owner guards it.
type quota struct {
	limit  int   // 0 or less: no limit
	span   int64 // seconds
	window int64
	used   int
}

func perDay(limit int) quota    { return quota{limit: limit, span: 24 * 60 * 60} }
func perMinute(limit int) quota { return quota{limit: limit, span: 60} }

func (q *quota) full(now int64) bool {
	return q.limit > 0 && q.windowOf(now) == q.window && q.used >= q.limit
}

func (q *quota) count(now int64) {
	if w := q.windowOf(now); w != q.window {
		q.window, q.used = w, 0
	}
	q.used++
}

func (q *quota) windowOf(now int64) int64 { return (now/1e9 + shanghai) / q.span }
