package export

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
	"github.com/mlaconvert/mlaconvert/internal/gguf"
)

const (
	templateFile    = "chat_template.jinja"
	templateFolder  = "additional_chat_templates"
	templateSuffix  = ".jinja"
	defaultTemplate = "default"
)

// chatTemplates reads the chat templates: chat_template.jinja or, failing that, those of tokenizer_config.json, which are one
// or a list by name, and the files of additional_chat_templates.
func chatTemplates(src *checkpoint.Source, s *settingsFile) ([]gguf.KV, error) {
	templates := make(map[string]string)
	if raw := s.ChatTemplate; len(raw) > 0 && string(raw) != "null" {
		var list []struct{ Name, Template string }
		var one string
		switch {
		case json.Unmarshal(raw, &one) == nil:
			templates[defaultTemplate] = one
		case json.Unmarshal(raw, &list) == nil:
			for _, t := range list {
				templates[t.Name] = t.Template
			}
		default:
			return nil, &checkpoint.Error{
				Kind: checkpoint.BadSource, File: filepath.Join(src.Dir(), tokenizerConfig), Tensor: "chat_template", Got: "neither of them",
				Want: "a template, or a list of them with names",
			}
		}
	}
	files := map[string]string{defaultTemplate: templateFile}
	listing, err := os.ReadDir(filepath.Join(src.Dir(), templateFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range listing {
		if name, ok := strings.CutSuffix(f.Name(), templateSuffix); ok && name != defaultTemplate {
			files[name] = filepath.Join(templateFolder, f.Name())
		}
	}
	for name, file := range files {
		text, err := src.ReadFile(file, maxSettings)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		templates[name] = string(text)
	}
	var kv []gguf.KV
	if text, ok := templates[defaultTemplate]; ok {
		kv = append(kv, gguf.KV{Key: "tokenizer.chat_template", Value: text})
		delete(templates, defaultTemplate)
	}
	if len(templates) == 0 {
		return kv, nil
	}
	names := slices.Sorted(maps.Keys(templates))
	kv = append(kv, gguf.KV{Key: "tokenizer.chat_templates", Value: names})
	for _, name := range names {
		kv = append(kv, gguf.KV{Key: "tokenizer.chat_template." + name, Value: templates[name]})
	}
	return kv, nil
}
