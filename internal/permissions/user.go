package permissions

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Request says for whom permissions are wanted.
type Request struct {
	Prefix, Bucket string // WXKEEPER_SUBJECT_PREFIX, WXKEEPER_BUCKET
	Roles          []Role // at least one; the user may do what any of them does
	AppIDs         []string
	User           string // "": made of the roles and AppIDs
}

// token is one token of a NATS subject, and a word of the server's configuration.
var token = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func checkUser(user string) error {
	if !token.MatchString(user) {
		return fmt.Errorf("the user %q is not 1 to 64 letters, digits, _ and -, of which the subjects of its inbox are made", user)
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
			return fmt.Errorf("%s is the role of certain accounts: say which with --appid", role)
		}
		if role == Watcher && len(r.AppIDs) > 1 {
			return errors.New("watcher is for one account: NATS cannot limit a watch of several to them; take direct, or a user for each")
		}
	}
	if len(r.AppIDs) > 0 && !slices.ContainsFunc(r.Roles, Role.OfAccount) {
		return fmt.Errorf("%s is for all accounts: leave --appid out", r.Roles[0])
	}
	for _, id := range r.AppIDs {
		if !token.MatchString(id) {
			return fmt.Errorf("%q is not an AppID", id)
		}
	}
	if r.User == "" {
		for _, role := range r.Roles {
			r.User += string(role) + "-"
		}
		r.User = strings.TrimSuffix(r.User+strings.Join(r.AppIDs, "-"), "-")
	}
	return checkUser(r.User)
}

// Inbox is the beginning of the subjects on which a user gets its replies: with the _INBOX of all, each would read the
// replies of the others.
func Inbox(user string) string { return "_INBOX_" + user }

// variable is the name by which the server's configuration refers to a user.
func variable(user string) string { return "user_" + user }

// password is the variable that holds its password.
func password(user string) string {
	return strings.ToUpper(strings.ReplaceAll(user, "-", "_")) + "_PASSWORD"
}

// User is a block of nats-server's configuration: a variable that is one user, for a list of users.
func User(r Request) (string, error) {
	if err := r.check(); err != nil {
		return "", err
	}
	var l list
	for _, role := range r.Roles {
		l = l.united(names{r.Prefix, r.Bucket}.roleOf(role, r.AppIDs))
	}
	l = l.united(list{subscribe: []group{{"get replies, and see nobody else's", []string{Inbox(r.User) + ".>"}}}})

	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n", meanings(r.Roles, r.AppIDs))
	fmt.Fprintf(&b, "# nats-server.conf: include this file, and put $%s into a list of users\n", variable(r.User))
	fmt.Fprintf(&b, "# the server's environment: %s='\"…\"', or the password's bcrypt hash (nats server passwd)\n", password(r.User))
	fmt.Fprintf(&b, "# the client: NATS_USER=%s NATS_PASSWORD=… NATS_INBOX_PREFIX=%s\n", r.User, Inbox(r.User))
	fmt.Fprintf(&b, "%s: {\n  user: %q\n  password: $%s\n  permissions: {\n", variable(r.User), r.User, password(r.User))
	if len(l.publish) > 0 {
		write(&b, "publish", l.publish)
	}
	write(&b, "subscribe", l.subscribe)
	if l.answers {
		b.WriteString("    # one reply to each request, within the time that a settlement may take\n")
		b.WriteString("    allow_responses: { max: 1, expires: \"2m\" }\n")
	}
	b.WriteString("  }\n}\n")
	return b.String(), nil
}

func write(b *strings.Builder, what string, groups []group) {
	fmt.Fprintf(b, "    %s: { allow: [\n", what)
	for _, g := range groups {
		fmt.Fprintf(b, "      # %s\n", g.why)
		for _, s := range g.subjects {
			fmt.Fprintf(b, "      %q\n", s)
		}
	}
	b.WriteString("    ] }\n")
}
