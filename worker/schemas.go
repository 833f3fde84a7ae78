package worker

import (
	"encoding/json"
	"fmt"

	"github.com/wxkeeper/wxkeeper/messages"
)

// schema is a JSON Schema of the contract as the metadata of an endpoint has it: on one line, and without its
// prose, because every answer to `nats micro info` carries all of them.
func schema(name string) (string, error) {
	text, err := messages.Schemas.ReadFile("schemas/" + name + ".json")
	if err != nil {
		return "", err
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		return "", fmt.Errorf("schema %s: %w", name, err)
	}
	withoutProse(s)
	text, err = json.Marshal(s)
	return string(text), err
}

func withoutProse(schema any) {
	s, ok := schema.(map[string]any)
	if !ok {
		return
	}
	delete(s, "description")
	delete(s, "$schema")
	withoutProse(s["items"])
	withoutProse(s["additionalProperties"])
	if properties, ok := s["properties"].(map[string]any); ok {
		for _, p := range properties {
			withoutProse(p)
		}
	}
}
