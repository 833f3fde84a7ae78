package messages

import "embed"

// Schemas has a JSON Schema for each request and reply, schemas/<subject>.request.json and schemas/<subject>.reply.json
// (schemas/code.resolve.request.json), and schemas/error.json and schemas/event.json. They are made from the types of this
// package. Fields that a schema does not name may come at any time.
//
//go:embed schemas/*.json
var Schemas embed.FS
