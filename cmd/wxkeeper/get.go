package main

import (
	"context"
	"io"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/messages"
)

type getVerb struct {
	clientFlags
	accountFlag
	Kind   messages.Kind `arg:"" optional:"" default:"access_token" enum:"${kinds}" help:"access_token (default), jsapi_ticket or wx_card_ticket."`
	Reveal bool          `help:"Show the value on a terminal too."`
	JSON   bool          `name:"json" help:"Print the whole record."`
}

func (getVerb) Help() string {
	return `To a pipe or a file it prints only the value, so that $(wxkeeper get) is the token. On a terminal, where
other people may see it, the value is masked unless --reveal is given. A worker answers the request (subject
wechat.credential.get) from its memory, without a call of WeChat.

Examples:

    TOKEN=$(wxkeeper get)
    wxkeeper get jsapi_ticket --appid wx0123456789abcdef --json
`
}

func (v *getVerb) Run(ctx context.Context, t *terminal) error {
	var c messages.Credential
	err := v.request(ctx, t, func(ctx context.Context, client *messages.Client, cfg config.Config) (err error) {
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
	if !t.tty { // unchanged, for $(wxkeeper get)
		_, err := io.WriteString(t.out, c.Value+"\n")
		return err
	}
	safetext.Fprintf(t.out, "%s\n", c.Value)
	if hide {
		safetext.Fprintf(t.out, "%s of %s, generation %d, revision %d, expires %s, from %s by %s\n",
			c.Kind, c.AppID, c.Generation, c.Revision, relative(t.now(), c.ExpiresAt), c.Source, c.Worker)
	}
	return nil
}
