package convert

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mlaconvert/mlaconvert/internal/checkpoint"
)

// File is a file or folder beside the source's weights.
type File struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	Copied bool   `json:"copied"`
	// Reason says why a file is not copied.
	Reason string `json:"reason,omitempty"`
}

// copiedFiles are what a tokenizer, a chat or a generation needs, and the terms of use, in the names of Hugging Face.
var copiedFiles = []string{
	"tokenizer.json", "tokenizer_config.json", "tokenizer.model", "tokenizer.model.v3", "tekken.json",
	"special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
	"sentencepiece.bpe.model", "spiece.model",
	"generation_config.json", "chat_template.jinja", "chat_template.json",
	"LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE", "NOTICE", "NOTICE.md", "NOTICE.txt", "Notice", "USE_POLICY.md",
}

// templatesFolder holds further chat templates, one a file.
const templatesFolder = "additional_chat_templates"

// listFiles says of everything in the source's folder but the weights whether it is copied.
func listFiles(src *checkpoint.Source) ([]File, error) {
	listing, err := os.ReadDir(src.Dir())
	if err != nil {
		return nil, err
	}
	weights := src.Files()
	var out []File
	for _, entry := range listing {
		f := File{Name: entry.Name()}
		if slices.Contains(weights, f.Name) {
			continue
		}
		info, err := os.Stat(filepath.Join(src.Dir(), f.Name)) // links followed, as in a Hugging Face cache
		switch {
		case err != nil:
			f.Reason = "a link to nothing"
		case src.CheckInside(f.Name) != nil:
			f.Reason = "a link out of its folder"
		case info.IsDir() && f.Name == templatesFolder:
			templates, err := listTemplates(src)
			if err != nil {
				return nil, err
			}
			out = append(out, templates...)
			continue
		case info.IsDir():
			f.Reason = "a folder"
		case !info.Mode().IsRegular():
			f.Reason = "no regular file"
		default:
			f.Bytes = info.Size()
			f.Reason = leaveReason(f.Name)
		}
		f.Copied = f.Reason == ""
		out = append(out, f)
	}
	return out, nil
}

// listTemplates lists the files of templatesFolder, by their names below the source's folder.
func listTemplates(src *checkpoint.Source) ([]File, error) {
	listing, err := os.ReadDir(filepath.Join(src.Dir(), templatesFolder))
	if err != nil {
		return nil, err
	}
	var out []File
	for _, entry := range listing {
		f := File{Name: filepath.Join(templatesFolder, entry.Name())}
		info, err := os.Stat(filepath.Join(src.Dir(), f.Name))
		switch {
		case err != nil || !info.Mode().IsRegular():
			f.Reason = "no regular file"
		case src.CheckInside(f.Name) != nil:
			f.Reason = "a link out of its folder"
		case filepath.Ext(f.Name) != ".jinja":
			f.Reason = "not known to be needed"
		default:
			f.Bytes, f.Copied = info.Size(), true
		}
		out = append(out, f)
	}
	return out, nil
}

// leaveReason says why a file is not copied, or "" if it is.
func leaveReason(name string) string {
	switch {
	case slices.Contains(copiedFiles, name):
		return ""
	case name == "config.json":
		return "the output has its own"
	case strings.EqualFold(name, "README.md"):
		return "describes the source; the output has its own"
	case strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".safetensors.index.json"):
		return "weights; the output has its own"
	case slices.Contains([]string{".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"}, strings.ToLower(filepath.Ext(name))):
		return "weights in another format"
	case name == RecordFile:
		return "the output has its own"
	}
	return "not known to be needed"
}
