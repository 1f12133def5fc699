package tokens

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// IDs reads sequences of token ids from a NumPy file (.npy; see [Options] for how they are cut) or from JSON lines, each
// a list of ids.
func IDs(path string, o Options) ([][]int, error) {
	c := &collector{Options: o}
	var err error
	switch {
	case isNumPy(path):
		err = readNumPy(path, c)
	case isJSONLines(path):
		err = readIDLines(path, c)
	default:
		e := bad(path, "a file that is neither .npy nor .jsonl", "token ids as a NumPy array or as JSON lines")
		e.Hint = "text is given with --text"
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	return c.done(path)
}

func readIDLines(path string, c *collector) error {
	return eachLine(path, func(number int, line []byte) (bool, error) {
		where := fmt.Sprintf("line %d", number)
		// Elements are taken as they are written: decoded into integers, null would become 0.
		var list []json.RawMessage
		if err := json.Unmarshal(line, &list); err != nil || line[0] != '[' {
			return false, bad(path, where+": "+clip(line), "a JSON list of token ids")
		}
		if len(list) == 0 {
			return false, bad(path, where+": an empty list", "a JSON list of token ids")
		}
		ids := make([]int, len(list))
		for i, text := range list {
			id, err := strconv.ParseInt(string(text), 10, 64)
			if err != nil {
				return false, bad(path, fmt.Sprintf("%s, position %d: %s", where, i, clip(text)), "a whole number")
			}
			ids[i] = int(id)
		}
		if err := c.check(path, where, ids); err != nil {
			return false, err
		}
		c.add(ids)
		return !c.full(), nil
	})
}

// clip shortens a piece of a file for a message.
func clip(b []byte) string {
	const most = 60
	if len(b) <= most {
		return string(b)
	}
	return string(b[:most]) + "..."
}

// AreIDs tells a file of token ids from one of text: by its name, and for JSON lines by the first.
func AreIDs(path string) (bool, error) {
	if !isJSONLines(path) {
		return isNumPy(path), nil
	}
	ids := false
	err := eachLine(path, func(_ int, line []byte) (bool, error) {
		ids = line[0] == '['
		return false, nil
	})
	return ids, err
}
