package kvtest_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/wxkeeper/wxkeeper/kv"
	"github.com/wxkeeper/wxkeeper/kv/kvtest"
)

func Example() {
	bucket := kvtest.NewBucket()
	defer bucket.Close()
	reader := bucket.Reader(kv.ReaderConfig{AppIDs: []string{"wx0123456789abcdef"}})
	token := reader.Handle("wx0123456789abcdef", kv.AccessToken)

	bucket.Set("wx0123456789abcdef", kv.AccessToken, "first", 2*time.Hour)
	fmt.Println(token.Value())

	bucket.GoAway() // NATS is away: the Reader goes on with what it has, until that ends
	bucket.Set("wx0123456789abcdef", kv.AccessToken, "second", 4*time.Hour)
	fmt.Println(token.Value())
	bucket.Advance(2 * time.Hour)
	_, err := token.Value()
	fmt.Println(errors.Is(err, kv.ErrExpired))

	bucket.ComeBack()
	fmt.Println(token.Value())
	// Output:
	// first <nil>
	// first <nil>
	// true
	// second <nil>
}
