package wechattest

// A day of WeChat is one of Asia/Shanghai, which has had no summer time since
// 1991. No page says so; it is what every operator assumes.
const shanghai = 8 * 60 * 60

// quota counts successes in a window of the clock. Its owner's lock guards it.
type quota struct {
	limit  int   // 0 or less: none
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
