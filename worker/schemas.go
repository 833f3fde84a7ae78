package worker

import (
	"encoding/json"
	"fmt"

	"github.com/wxkeeper/wxkeeper/messages"
)

// schema is a JSON Schema of the contract for the metadata of an endpoint: on one line and without descriptions,
// because every answer to `nats micro info` contains all schemas.
func schema(name string) (string, error) {
	text, err := messages.Schemas.ReadFile("schemas/" + name + ".json")
	if err != nil {
		return "", err
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		return "", fmt.Errorf("schema %s: %w", name, err)
	}
	removeDescriptions(s)
	text, err = json.Marshal(s)
	return string(text), err
}

func removeDescriptions(schema any) {
	s, ok := schema.(map[string]any)
	if !ok {
		return
	}
	delete(s, "description")
	delete(s, "$schema")
	removeDescriptions(s["items"])
	removeDescriptions(s["additionalProperties"])
	if properties, ok := s["properties"].(map[string]any); ok {
		for _, p := range properties {
			removeDescriptions(p)
		}
	}
}
