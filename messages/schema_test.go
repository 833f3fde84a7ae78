package messages_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wxkeeper/wxkeeper/messages"
)

//go:generate go test -run=TestSchemasAreThoseOfTheTypes -update .

var update = flag.Bool("update", false, "write schemas/*.json")

// schemas are the types of which there is a schema, by the name of its file.
var schemas = map[string]any{
	messages.SubjectCodeResolve + ".request": messages.ResolveCodeRequest{}, messages.SubjectCodeResolve + ".reply": messages.Code{},
	messages.SubjectCredentialGet + ".request": messages.GetCredentialRequest{}, messages.SubjectCredentialGet + ".reply": messages.Credential{},
	messages.SubjectCredentialRefresh + ".request": messages.RefreshCredentialRequest{}, messages.SubjectCredentialRefresh + ".reply": messages.Refreshed{},
	messages.SubjectJSSDKSign + ".request": messages.SignJSSDKRequest{}, messages.SubjectJSSDKSign + ".reply": messages.JSSDKSignature{},
	messages.SubjectCardSign + ".request": messages.SignCardRequest{}, messages.SubjectCardSign + ".reply": messages.CardSignature{},
	messages.SubjectStatus + ".request": messages.StatusRequest{}, messages.SubjectStatus + ".reply": messages.Status{},
	"error": messages.Error{}, "event": messages.Event{},
}

// schema is what is used here of JSON Schema 2020-12. A field that is not named in a schema is allowed: the contract is
// extended. So there is no enum in a reply either.
type schema struct {
	Dialect     string     `json:"$schema,omitempty"`
	ID          string     `json:"$id,omitempty"`
	Description string     `json:"description,omitempty"`
	Type        string     `json:"type"`
	Format      string     `json:"format,omitempty"`
	Enum        []string   `json:"enum,omitempty"`
	Pattern     string     `json:"pattern,omitempty"`
	Minimum     *int       `json:"minimum,omitempty"`
	MaxLength   int        `json:"maxLength,omitempty"` // in characters, where the workers count bytes
	Properties  properties `json:"properties,omitempty"`
	Required    []string   `json:"required,omitempty"`
	Items       *schema    `json:"items,omitempty"`
	Additional  *schema    `json:"additionalProperties,omitempty"`
}

// properties are written in the order of the fields.
type properties []property

type property struct {
	name string
	schema
}

func (ps properties) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, p := range ps {
		if i > 0 {
			b.WriteByte(',')
		}
		body, err := json.Marshal(p.schema)
		if err != nil {
			return nil, err
		}
		b.WriteString(`"` + p.name + `":`)
		b.Write(body)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// rules are what the types do not say of their fields.
func rules(field string, s *schema) {
	switch field {
	case "ResolveCodeRequest.OpenID":
		s.MaxLength = messages.MaxOpenID
	case "ResolveCodeRequest.CodeTicket":
		s.MaxLength = messages.MaxCodeTicket
	case "GetCredentialRequest.Kind", "RefreshCredentialRequest.Kind":
		for _, k := range messages.Kinds {
			s.Enum = append(s.Enum, string(k))
		}
	case "RefreshCredentialRequest.ValueSHA256":
		s.Pattern = "^[0-9a-fA-F]{64}$"
	case "SignJSSDKRequest.URL":
		s.Pattern = "^https?://"
	case "SignCardRequest.Action":
		s.Enum = []string{messages.ActionAddCard, messages.ActionChooseCard}
	case "SignCardRequest.FixedBeginTimestamp":
		s.Minimum = new(int)
	case "SignCardRequest.CardID", "SignCardRequest.Code", "SignCardRequest.OpenID", "SignCardRequest.OuterStr", "SignCardRequest.ShopID", "SignCardRequest.CardType":
		s.MaxLength = messages.MaxCardField
	}
}

// schemaOf makes the schema of a type, with the comments of the source as descriptions.
func schemaOf(t *testing.T, typ reflect.Type, comments map[string]string) schema {
	t.Helper()
	switch {
	case typ == reflect.TypeFor[time.Time]():
		return schema{Type: "string", Format: "date-time"}
	case typ.Kind() == reflect.String:
		return schema{Type: "string"}
	case typ.Kind() == reflect.Bool:
		return schema{Type: "boolean"}
	case typ.Kind() == reflect.Uint64:
		return schema{Type: "integer", Minimum: new(int)}
	case typ.Kind() == reflect.Int, typ.Kind() == reflect.Int64:
		return schema{Type: "integer"}
	case typ.Kind() == reflect.Map:
		each := schemaOf(t, typ.Elem(), comments)
		return schema{Type: "object", Additional: &each}
	case typ.Kind() == reflect.Slice:
		each := schemaOf(t, typ.Elem(), comments)
		return schema{Type: "array", Items: &each}
	case typ.Kind() != reflect.Struct:
		t.Fatalf("no schema for %s", typ)
	}
	s := schema{Type: "object", Description: comments[typ.Name()]}
	for f := range typ.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		field := schemaOf(t, f.Type, comments)
		path := typ.Name() + "." + f.Name
		if text := comments[path]; text != "" {
			field.Description = text
		}
		rules(path, &field)
		s.Properties = append(s.Properties, property{name, field})
		// WeChat's own answer is passed on as it comes: nobody can promise its fields.
		revision := path == "Credential.Revision" // left out of the stored record only
		if (options == "" || revision) && typ != reflect.TypeFor[messages.Code]() {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

// commentsOf are the comments of the types ("Code") and of their fields ("Code.CodeStart") in this package.
func commentsOf(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	link := regexp.MustCompile(`\[(\w+)\]`)
	text := func(groups ...*ast.CommentGroup) string {
		for _, g := range groups {
			if g != nil {
				first, _, _ := strings.Cut(g.Text(), "\n\n") // what follows is for Go
				return link.ReplaceAllString(strings.Join(strings.Fields(first), " "), "$1")
			}
		}
		return ""
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			gen, ok := d.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE || strings.HasSuffix(file, "_test.go") {
				continue
			}
			typ := gen.Specs[0].(*ast.TypeSpec)
			comments[typ.Name.Name] = text(gen.Doc)
			if st, ok := typ.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, name := range f.Names {
						comments[typ.Name.Name+"."+name.Name] = text(f.Doc, f.Comment)
					}
				}
			}
		}
	}
	return comments
}

// What users in other languages read and generate code from. `go generate ./messages` writes it anew.
func TestSchemasAreThoseOfTheTypes(t *testing.T) {
	t.Parallel()
	comments := commentsOf(t)
	for name, v := range schemas {
		s := schemaOf(t, reflect.TypeOf(v), comments)
		s.Dialect, s.ID = "https://json-schema.org/draft/2020-12/schema", "https://raw.githubusercontent.com/wxkeeper/wxkeeper/main/messages/schemas/"+name+".json"
		var want bytes.Buffer
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		if err := e.Encode(s); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("schemas", name+".json")
		if *update {
			if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s is not the schema of %T (%v): run `go generate ./messages`", file, v, err)
		}
	}
	files, err := filepath.Glob("schemas/*")
	if err != nil || len(files) != len(schemas) {
		t.Errorf("schemas/ has %q, %v", files, err)
	}
}
