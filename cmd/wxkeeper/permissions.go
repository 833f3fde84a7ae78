package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/wxkeeper/wxkeeper/internal/config"
	"github.com/wxkeeper/wxkeeper/internal/permissions"
	"github.com/wxkeeper/wxkeeper/internal/safetext"
)

type permissionsVerb struct {
	Kind  []string `arg:"" enum:"${roles}" help:"What the user is for. With several kinds it may do what each of them may."`
	AppID []string `name:"appid" placeholder:"APPID" help:"An account of a requester, resolver, signer, direct or watcher; * for all accounts. May be repeated."`
	User  []string `placeholder:"NAME" help:"Name of the user. Default: built from the kinds and accounts. For accounts: a user of the account APPS; may be repeated."`
}

// kindAccounts is the kind that is not a role of a user.
const kindAccounts = "accounts"

func (permissionsVerb) Help() string {
	var b strings.Builder
	b.WriteString("It prints configuration of nats-server that permits everything that this kind of user needs, and " +
		"nothing else. A service needs requester. docs/security.md describes what an attacker could do with each " +
		"kind of user. The names of the bucket, of the subjects and of a JetStream domain come from " +
		"WXKEEPER_BUCKET, WXKEEPER_SUBJECT_PREFIX and WXKEEPER_JS_DOMAIN.\n\nThe kinds:\n\n")
	for _, r := range permissions.Roles {
		safetext.Fprintf(&b, "    %-9s %s\n", r, r.Meaning())
	}
	safetext.Fprintf(&b, "    %-9s %s\n", kindAccounts,
		"two NATS accounts: WX for workers, APPS for services and operators")
	b.WriteString(`
Examples:

    wxkeeper permissions worker > worker.conf
    wxkeeper permissions requester --appid wx0123456789abcdef --user shop > shop.conf
    wxkeeper permissions operator > operator.conf
    wxkeeper permissions accounts --user shop --user operator >> nats-server.conf
`)
	return b.String()
}

// Validate is called by kong.
func (v *permissionsVerb) Validate() error {
	if slices.Contains(v.AppID, permissions.AllAccounts) {
		return nil // permissions.User checks the rest
	}
	return checkAppIDs(v.AppID...)
}

func (v *permissionsVerb) Run(t *terminal) error {
	cfg, err := config.Load(nil)
	if err != nil {
		return err
	}
	text, err := v.text(cfg)
	if err != nil {
		return usage(fmt.Errorf("permissions: %w", err))
	}
	_, err = io.WriteString(t.out, text)
	return err
}

func (v *permissionsVerb) text(cfg config.Config) (string, error) {
	switch {
	case !slices.Contains(v.Kind, kindAccounts):
	case len(v.Kind) > 1, len(v.AppID) > 0:
		return "", errors.New("accounts cannot be combined with another kind or with --appid; give --user for each " +
			"user of the account APPS")
	case len(v.User) == 0:
		return "", errors.New("accounts: name the users of the account APPS with --user")
	default:
		return permissions.Accounts(cfg.SubjectPrefix, cfg.Bucket, cfg.JSDomain, v.User)
	}
	r := permissions.Request{Prefix: cfg.SubjectPrefix, Bucket: cfg.Bucket, Domain: cfg.JSDomain, AppIDs: v.AppID}
	for _, k := range v.Kind {
		r.Roles = append(r.Roles, permissions.Role(k))
	}
	switch len(v.User) {
	case 0:
	case 1:
		r.User = v.User[0]
	default:
		return "", errors.New("these are the permissions of one user: one --user")
	}
	return permissions.User(r)
}
