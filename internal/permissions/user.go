package permissions

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/wxkeeper/wxkeeper/messages"
)

// Request describes the user for which permissions are wanted.
type Request struct {
	Prefix, Bucket string   // WXKEEPER_SUBJECT_PREFIX, WXKEEPER_BUCKET
	Domain         string   // WXKEEPER_JS_DOMAIN; "": none
	Roles          []Role   // at least one; the user may do what any of them does
	AppIDs         []string // of a user that is limited to accounts; only [AllAccounts]: it is not limited
	User           string   // the user's name; "": built from the roles and AppIDs
}

// userName matches names that are one token of a NATS subject and one word of the server's configuration.
var userName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func checkUser(user string) error {
	if !userName.MatchString(user) {
		return fmt.Errorf("the user %q is not a name of 1 to 64 of A-Z a-z 0-9 _ -: "+
			"the subjects of its inbox contain the name", user)
	}
	return nil
}

func (r *Request) check() error {
	if len(r.Roles) == 0 {
		return errors.New("a role is missing")
	}
	for _, role := range r.Roles {
		if !slices.Contains(Roles, role) {
			return fmt.Errorf("there is no role %q", role)
		}
		if role.OfAccount() && len(r.AppIDs) == 0 {
			return fmt.Errorf("%s is limited to accounts: name them with --appid", role)
		}
		if role == Watcher && len(r.AppIDs) > 1 {
			return errors.New("watcher is for one account, because NATS cannot limit a watch to several: " +
				"use requester or direct, or one user for each account")
		}
	}
	if len(r.AppIDs) > 0 && !slices.ContainsFunc(r.Roles, Role.OfAccount) {
		return fmt.Errorf("%s is for all accounts: leave --appid out", r.Roles[0])
	}
	if err := r.checkAppIDs(); err != nil {
		return err
	}
	if r.User == "" {
		return r.name()
	}
	if err := checkUser(r.User); err != nil {
		return err
	}
	for _, role := range Roles {
		if !role.OfAccount() && !slices.Contains(r.Roles, role) && password(r.User) == password(string(role)) {
			return fmt.Errorf("the user %q has the name of the user of `wxkeeper permissions %s`: choose another name",
				r.User, role)
		}
	}
	return nil
}

func (r *Request) checkAppIDs() error {
	if slices.Contains(r.AppIDs, AllAccounts) {
		switch {
		case len(r.AppIDs) > 1:
			return errors.New("* is for all accounts: name no other AppID")
		case r.User == "":
			return errors.New("name the user of all accounts with --user")
		}
		return nil
	}
	for _, id := range r.AppIDs {
		if err := messages.CheckAppID(id); err != nil {
			return err
		}
	}
	return nil
}

// name builds the user's name from its roles and AppIDs.
func (r *Request) name() error {
	for _, id := range r.AppIDs {
		if strings.ContainsFunc(id, func(c rune) bool { return c == '_' || 'A' <= c && c <= 'Z' }) {
			return fmt.Errorf("name the user of %s with --user: a name that is built from an AppID with _ or "+
				"capital letters could have the password variable of another user", id)
		}
	}
	var parts []string
	for _, role := range r.Roles {
		parts = append(parts, string(role))
	}
	r.User = strings.Join(append(parts, r.AppIDs...), "-")
	return checkUser(r.User)
}

// checkDistinct checks that each user has a name and a password variable of its own.
func checkDistinct(users []string) error {
	seen := map[string]string{}
	for _, u := range users {
		switch other, ok := seen[password(u)]; {
		case ok && other == u:
			return fmt.Errorf("the user %q is named twice", u)
		case ok:
			return fmt.Errorf("the users %q and %q would have the same password variable %s: rename one of them",
				other, u, password(u))
		}
		seen[password(u)] = u
	}
	return nil
}

// Inbox is the first token of the subjects on which a user receives its replies. With the default prefix
// _INBOX, which all users would share, each user could read the replies to the others.
func Inbox(user string) string { return "_INBOX_" + user }

// variable is the name by which the server's configuration refers to a user.
func variable(user string) string { return "user_" + user }

// password is the environment variable of the server that holds the user's password.
func password(user string) string {
	return strings.ToUpper(strings.ReplaceAll(user, "-", "_")) + "_PASSWORD"
}

// User returns a block of nats-server's configuration: a variable that is one user, for a list of users.
func User(r Request) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	var l list
	for _, role := range r.Roles {
		l = l.union(names{r.Prefix, r.Bucket, r.Domain}.role(role, r.AppIDs))
	}
	l.publish = inDomain(r.Domain, l.publish)
	inbox := group{"receive this user's replies, and no other user's", []string{Inbox(r.User) + ".>"}}
	l = l.union(list{subscribe: []group{inbox}})

	var b strings.Builder
	user, secret := variable(r.User), password(r.User)
	for _, role := range r.Roles {
		fmt.Fprintf(&b, "# %s: %s\n", role, role.Meaning())
	}
	if len(r.AppIDs) > 0 {
		fmt.Fprintf(&b, "# given accounts: %s\n", strings.ReplaceAll(strings.Join(r.AppIDs, ", "), AllAccounts, "all"))
	}
	fmt.Fprintf(&b, "# nats-server.conf: include this file, and add $%s to a list of users\n", user)
	fmt.Fprintf(&b, "# environment of the server: %s='\"…\"', "+
		"or the bcrypt hash of the password (nats server passwd)\n", secret)
	fmt.Fprintf(&b, "# environment of the client: NATS_USER=%s NATS_PASSWORD=… NATS_INBOX_PREFIX=%s\n",
		r.User, Inbox(r.User))
	fmt.Fprintf(&b, "%s: {\n  user: %q\n  password: $%s\n  permissions: {\n", user, r.User, secret)
	b.WriteString("    publish: { allow: [\n")
	write(&b, l.publish, "%q")
	b.WriteString("    ] }\n    subscribe: { allow: [\n")
	write(&b, l.subscribe, "%q")
	b.WriteString("    ] }\n")
	if l.answers {
		b.WriteString("    # one reply to each request, within the longest time that a reply may take\n")
		b.WriteString("    allow_responses: { max: 1, expires: \"2m\" }\n")
	}
	b.WriteString("  }\n}\n")
	return b.String(), nil
}

// write writes one line for each subject, in a format with %q for the subject.
func write(b *strings.Builder, groups []group, format string) {
	for _, g := range groups {
		fmt.Fprintf(b, "      # %s\n", g.purpose)
		for _, s := range g.subjects {
			fmt.Fprintf(b, "      "+format+"\n", s)
		}
	}
}
