package wechat

// escapeControls escapes the raw control characters in the strings of a JSON text: an activity whose name contains a
// line break would otherwise make every code of that activity unusable. blanked is the text with a space in place of
// each such character, for error messages with the offsets of the text.
//
// A control character after a backslash stays as it is, so that the text is refused: escaping it would give the
// backslash another meaning.
func escapeControls(text []byte) (blanked, escaped []byte) {
	const hex = "0123456789abcdef"
	blanked, escaped = make([]byte, 0, len(text)), make([]byte, 0, len(text)+64)
	inString, afterBackslash := false, false
	for _, c := range text {
		switch {
		case inString && !afterBackslash && c < ' ':
			blanked = append(blanked, ' ')
			escaped = append(escaped, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
			continue
		case c == '"' && !afterBackslash:
			inString = !inString
		}
		afterBackslash = inString && !afterBackslash && c == '\\'
		blanked, escaped = append(blanked, c), append(escaped, c)
	}
	return blanked, escaped
}
