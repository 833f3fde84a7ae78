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

	"github.com/google/go-cmp/cmp"

	"github.com/wxkeeper/wxkeeper/messages"
)

//go:generate go test -run=TestSchemasMatchTheTypes -update .

var update = flag.Bool("update", false, "write schemas/*.json")

// schemas has the type of each schema, by the name of the schema's file.
var schemas = map[string]any{
	messages.SubjectCodeResolve + ".request":       messages.ResolveCodeRequest{},
	messages.SubjectCodeResolve + ".reply":         messages.Code{},
	messages.SubjectCredentialGet + ".request":     messages.GetCredentialRequest{},
	messages.SubjectCredentialGet + ".reply":       messages.Credential{},
	messages.SubjectCredentialRefresh + ".request": messages.RefreshCredentialRequest{},
	messages.SubjectCredentialRefresh + ".reply":   messages.Refreshed{},
	messages.SubjectJSSDKSign + ".request":         messages.SignJSSDKRequest{},
	messages.SubjectJSSDKSign + ".reply":           messages.JSSDKSignature{},
	messages.SubjectCardSign + ".request":          messages.SignCardRequest{},
	messages.SubjectCardSign + ".reply":            messages.CardSignature{},
	messages.SubjectStatus + ".request":            messages.StatusRequest{},
	messages.SubjectStatus + ".reply":              messages.Status{},
	"error":                                        messages.Error{},
	"event":                                        messages.Event{},
}

// schema is the part of JSON Schema 2020-12 that is used here. Later versions may add fields and values to a
// reply, so a schema allows fields that it does not name, and the schema of a reply has no enum.
type schema struct {
	Dialect     string     `json:"$schema,omitempty"`
	ID          string     `json:"$id,omitempty"`
	Description string     `json:"description,omitempty"`
	Type        string     `json:"type"`
	Format      string     `json:"format,omitempty"`
	Enum        []string   `json:"enum,omitempty"`
	Pattern     string     `json:"pattern,omitempty"`
	Minimum     *int       `json:"minimum,omitempty"`
	MaxLength   int        `json:"maxLength,omitempty"` // in characters; the workers count bytes
	Properties  properties `json:"properties,omitempty"`
	Required    []string   `json:"required,omitempty"`
	Items       *schema    `json:"items,omitempty"`
	Additional  *schema    `json:"additionalProperties,omitempty"`
}

// properties keep the order of the fields in JSON.
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

// addRules adds the rules of a field that its type does not express.
func addRules(field string, s *schema) {
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
	case "SignCardRequest.CardID", "SignCardRequest.Code", "SignCardRequest.OpenID", "SignCardRequest.OuterStr",
		"SignCardRequest.ShopID", "SignCardRequest.CardType":
		s.MaxLength = messages.MaxCardField
	}
}

// schemaOf returns the schema of a type. The comments of the source are its descriptions.
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
			// The field's name in Go means nothing in another language.
			if rest, ok := strings.CutPrefix(text, f.Name+" "); ok {
				field.Description = name + " " + rest
			}
		}
		addRules(path, &field)
		s.Properties = append(s.Properties, property{name, field})
		// WeChat's own answer is passed on unchanged: the workers cannot promise its fields.
		revision := path == "Credential.Revision" // only the stored record leaves it out
		if (options == "" || revision) && typ != reflect.TypeFor[messages.Code]() {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

// readComments returns the comments of the types of this package ("Code") and of their fields
// ("Code.CodeStart").
func readComments(t *testing.T) map[string]string {
	t.Helper()
	comments := map[string]string{}
	link := regexp.MustCompile(`\[(\w+)\]`)
	text := func(groups ...*ast.CommentGroup) string {
		for _, g := range groups {
			if g != nil {
				first, _, _ := strings.Cut(g.Text(), "\n\n") // the other paragraphs are only for users of Go
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

// Users of other languages read the schemas and generate code from them. `go generate ./messages` writes them.
func TestSchemasMatchTheTypes(t *testing.T) {
	t.Parallel()
	comments := readComments(t)
	for name, v := range schemas {
		s := schemaOf(t, reflect.TypeOf(v), comments)
		s.Dialect = "https://json-schema.org/draft/2020-12/schema"
		s.ID = "https://raw.githubusercontent.com/wxkeeper/wxkeeper/main/messages/schemas/" + name + ".json"
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
		got, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want.String(), string(got)); diff != "" {
			t.Errorf("%s is not the schema of %T: run `go generate ./messages`: %s", file, v, diff)
		}
	}
	files, err := filepath.Glob("schemas/*")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(schemas) {
		t.Errorf("schemas/ has %q, and there are %d schemas", files, len(schemas))
	}
}
