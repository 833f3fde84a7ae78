package worker

import (
	"log/slog"

	"github.com/wxkeeper/wxkeeper/internal/bucket"
)

// watchLog logs the problems of one watch: each reason once, although the watch tries again each second. It is used by
// the goroutine of the watch.
type watchLog struct{ reason string }

func (w *watchLog) down(log *slog.Logger, bucketName string, err error) {
	if bucket.IsRoutine(err) || err.Error() == w.reason {
		return
	}
	w.reason = err.Error()
	log.Warn("watch restarted", "bucket", bucketName, "error", err)
}

func (w *watchLog) up(log *slog.Logger, bucketName string) {
	if w.reason != "" {
		log.Info("watch recovered", "bucket", bucketName)
	}
	w.reason = ""
}
