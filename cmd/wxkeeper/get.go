package main

import (
	"context"
	"fmt"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/messages"
)

type getVerb struct {
	asking
	account
	Kind   messages.Kind `arg:"" optional:"" default:"access_token" enum:"access_token,jsapi_ticket,wx_card_ticket" help:"access_token (default), jsapi_ticket or wx_card_ticket."`
	Reveal bool          `help:"Show the value on a terminal too."`
	JSON   bool          `name:"json" help:"Print the whole record."`
}

func (getVerb) Help() string {
	return `To a pipe or a file goes the value alone, so that $(wxkeeper get) is the token. On a terminal, where others may look on and scroll back, it is masked unless --reveal is given. A worker is asked (subject wechat.credential.get); it answers from memory, without calling WeChat.

Examples:

    TOKEN=$(wxkeeper get)
    wxkeeper get jsapi_ticket --appid wx0123456789abcdef --json
`
}

func (v *getVerb) Run(ctx context.Context, t *terminal) error {
	var c messages.Credential
	err := v.ask(ctx, t, func(ctx context.Context, client *messages.Client, cfg config.Config) (err error) {
		c, err = client.GetCredential(ctx, messages.GetCredentialRequest{AppID: v.or(cfg), Kind: v.Kind})
		return err
	})
	if err != nil {
		return err
	}
	return v.print(t, c)
}

func (v *getVerb) print(t *terminal, c messages.Credential) error {
	hide := t.tty && !v.Reveal
	if hide {
		c.Value = masked(c.Value)
	}
	if v.JSON {
		return t.json(c)
	}
	fmt.Fprintln(t.out, c.Value)
	if hide {
		fmt.Fprintf(t.out, "%s of %s, generation %d, revision %d, expires %s, from %s by %s\n",
			c.Kind, c.AppID, c.Generation, c.Revision, relative(t.now(), c.ExpiresAt), c.Source, c.Worker)
	}
	return nil
}
