package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
	"github.com/wxkeeper/wxkeeper/internal/utf8text"
	"github.com/wxkeeper/wxkeeper/messages"
)

type resolveVerb struct {
	clientFlags
	accountFlag
	OpenID     string `arg:"" name:"openid" help:"The openid of the user that scanned the code; or - to read the request as JSON from standard input."`
	CodeTicket string `arg:"" optional:"" name:"code-ticket" help:"The code_ticket of the scan."`
}

func (resolveVerb) Help() string {
	return `It prints the answer of WeChat unchanged. Other users of this machine can see the arguments of a command in
the list of processes. With - the request is read from standard input instead:
{"openid":"…","code_ticket":"…"}, and "appid" if the worker has more than one account. Write -- before an
openid or ticket that begins with a dash, and the flags before --.

Examples:

    wxkeeper resolve oiV2luCau8Cx0TMOy9lvZSLqRcKc 6cb4bc95e1f1abc97034cbe8fd484989
    wxkeeper resolve --appid wx0123456789abcdef -- -iV2luCau8Cx0TMOy9lvZSLqRcKc 6cb4bc95e1f1abc97034cbe8fd484989
    wxkeeper resolve - < request.json
`
}

func (v *resolveVerb) Run(ctx context.Context, t *terminal) error {
	req := messages.ResolveCodeRequest{OpenID: v.OpenID, CodeTicket: v.CodeTicket}
	switch {
	case v.OpenID == "-" && v.CodeTicket != "":
		return usage(errors.New("resolve -: the code_ticket is read from standard input too"))
	case v.OpenID == "-":
		var err error
		if req, err = readRequest(t.in); err != nil {
			return usage(err)
		}
		if req.AppID != "" {
			if err := messages.CheckAppID(req.AppID); errors.Is(err, messages.ErrAppSecret) {
				return usage(fmt.Errorf("resolve -: appid: %w", err))
			} else if err != nil { // it quotes the request
				return usage(fmt.Errorf("resolve -: appid: %w", messages.ErrInvalidAppID))
			}
		}
	case v.CodeTicket == "":
		return usage(errors.New("resolve: the code_ticket is missing: wxkeeper resolve OPENID CODE_TICKET, or " +
			"wxkeeper resolve - to read both from standard input"))
	}
	if v.AppID != "" {
		req.AppID = v.AppID
	}
	var answer messages.RawCode
	err := v.request(ctx, t, func(ctx context.Context, client *messages.Client, cfg config.Config) (err error) {
		req.AppID = cmp.Or(req.AppID, cfg.AppID)
		answer, err = client.ResolveCode(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	return v.print(t, bytes.TrimSpace(answer))
}

// print prints the answer: as it is to a pipe or a file, and indented and safe on a terminal.
func (v *resolveVerb) print(t *terminal, answer []byte) error {
	text := answer
	if t.tty {
		var pretty bytes.Buffer // Indent changes no names, no order and no digits
		if json.Indent(&pretty, answer, "", "  ") == nil {
			text = safetext.JSON(pretty.Bytes())
		} else {
			text = []byte(safetext.Line(string(answer))) // another responder than a worker has answered
		}
	}
	_, err := io.WriteString(t.out, string(text)+"\n")
	return err
}

// readRequest reads a request. Its errors do not quote the request.
func readRequest(r io.Reader) (req messages.ResolveCodeRequest, err error) {
	body, err := io.ReadAll(io.LimitReader(r, messages.MaxRequest+1))
	switch {
	case err != nil:
		return req, fmt.Errorf("resolve -: read standard input: %w", err)
	case len(body) > messages.MaxRequest:
		return req, fmt.Errorf("resolve -: standard input has more than %d bytes", messages.MaxRequest)
	}
	if body, err = utf8text.Decode(body, "standard input"); err != nil {
		return req, fmt.Errorf("resolve -: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if d.Decode(&req) != nil || d.More() {
		return req, errors.New(`resolve -: standard input is not one JSON object like {"openid":"…","code_ticket":"…"}`)
	}
	return req, nil
}
