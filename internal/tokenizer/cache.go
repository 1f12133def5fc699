package tokenizer

import (
	"strings"
	"sync"
)

// Limits of the cache of words: what is longer seldom comes again.
const (
	maxCachedWord  = 64      // bytes
	maxCachedBytes = 4 << 20 // of words and ids together, before the cache starts anew
)

// wordCache remembers the ids of words. It is safe for concurrent use.
type wordCache struct {
	mu   sync.RWMutex
	ids  map[string][]int32
	size int
}

func (c *wordCache) get(word string) ([]int32, bool) {
	if len(word) > maxCachedWord {
		return nil, false
	}
	c.mu.RLock()
	defer c.mu.RUnlock()
	ids, ok := c.ids[word]
	return ids, ok
}

func (c *wordCache) put(word string, ids []int) {
	if len(word) > maxCachedWord {
		return
	}
	kept := make([]int32, len(ids))
	for i, id := range ids {
		kept[i] = int32(id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ids == nil || c.size > maxCachedBytes {
		c.ids, c.size = map[string][]int32{}, 0
	}
	// The word may be part of a long text, which must not be kept for its sake.
	c.ids[strings.Clone(word)] = kept
	c.size += len(word) + 4*len(ids)
}
