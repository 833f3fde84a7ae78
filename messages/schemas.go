package messages

import "embed"

// Schemas has a JSON Schema of each request and reply: schemas/<subject>.request.json and
// schemas/<subject>.reply.json, for example schemas/code.resolve.request.json; and schemas/error.json and
// schemas/event.json. They are generated from the types of this package. Later versions may add fields: ignore
// fields that you do not know.
//
//go:embed schemas/*.json
var Schemas embed.FS
