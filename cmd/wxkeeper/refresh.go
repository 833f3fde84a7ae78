package main

import (
	"context"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/messages"
)

type refreshVerb struct {
	clientFlags
	accountFlag
	Kind        messages.Kind `arg:"" optional:"" default:"access_token" enum:"${kinds}" help:"access_token (default), jsapi_ticket or wx_card_ticket."`
	Revision    uint64        `placeholder:"N" help:"The credential that WeChat refused, by the revision of its record."`
	ValueSHA256 string        `name:"value-sha256" placeholder:"HEX" help:"Or by the SHA-256 of its value. With neither: the current credential."`
	JSON        bool          `name:"json" help:"Print the whole reply."`
}

func (refreshVerb) Help() string {
	return `If the reported credential is not the current one, the worker does not call WeChat: the answer describes the
current credential. Otherwise the worker asks WeChat whether the credential is dead, and refreshes it if the
budget of such refreshes allows. The answer is one of: refreshed (there is a new value), not_current (use the
current credential), alive (WeChat accepts it), unchanged (WeChat still issues the same value).

Examples:

    wxkeeper refresh
    wxkeeper refresh jsapi_ticket --appid wx0123456789abcdef --revision 42
    wxkeeper refresh --value-sha256 $(printf %s "$TOKEN" | sha256sum | cut -d' ' -f1)
`
}

// outcomes explains the outcomes of a report.
var outcomes = map[messages.Reason]string{
	messages.ReasonRefreshed:  "WeChat issued a new value",
	messages.ReasonNotCurrent: "the reported credential is not the current one; use the current one",
	messages.ReasonAlive:      "WeChat accepts the value (asked within the last seconds)",
	messages.ReasonUnchanged:  "WeChat still issues the same value",
}

func (v *refreshVerb) Run(ctx context.Context, t *terminal) error {
	var r messages.Refreshed
	err := v.request(ctx, t, func(ctx context.Context, client *messages.Client, cfg config.Config) (err error) {
		r, err = client.RefreshCredential(ctx, messages.RefreshCredentialRequest{
			AppID: v.or(cfg), Kind: v.Kind, Revision: v.Revision, ValueSHA256: v.ValueSHA256,
		})
		return err
	})
	switch {
	case err != nil:
		return err
	case v.JSON:
		return t.json(r)
	}
	safetext.Fprintf(t.out, "%s: %s\n%s of %s is generation %d, revision %d, expires %s\n",
		r.Reason, outcomes[r.Reason], r.Kind, r.AppID, r.Generation, r.Revision, relative(t.now(), r.ExpiresAt))
	return nil
}
