package report

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func example() *Verification {
	seed, most := uint64(7), 0.25
	return &Verification{
		Schema: VerificationSchema, Source: "models/a", Target: "a-mla",
		Cache: Cache{Source: 384, Target: 192, Ratio: 0.5}, Data: Data{Kind: SelfSampled, Sequences: 8, Context: 512, Start: "BOS", Seed: &seed},
		Tokens:     4096,
		Layers:     []Layer{{Layer: 0, AttentionError: 0.1234, NormError: 2e-7, StreamError: 0.05}, {Layer: 10, AttentionError: 12.5, NormError: 0, StreamError: 1}},
		Logits:     Logits{KLMean: 0.51234, KLP99: 3.25, Top1: 0.625},
		Perplexity: Perplexity{Source: 27.614, Target: 37.07, Ratio: 1.3424},
		Thresholds: Thresholds{MaxKL: &most},
		Failures:   []string{"mean KL 0.5123 nats, at most 0.25 allowed"},
		Warnings:   []string{"poor"},
	}
}

// TestJSON: the fields, their names and their order are a contract with scripts.
func TestJSON(t *testing.T) {
	got, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schema":"mlaconvert.verify/1","source":"models/a","target":"a-mla",` +
		`"cache":{"source_floats_per_token_per_layer":384,"target_floats_per_token_per_layer":192,"ratio":0.5},` +
		`"data":{"kind":"self-sampled","sequences":8,"context":512,"start":"BOS","seed":7},"tokens":4096,` +
		`"layers":[{"layer":0,"attention_error":0.1234,"norm_error":2e-7,"stream_error":0.05},{"layer":10,"attention_error":12.5,"norm_error":0,"stream_error":1}],` +
		`"logits":{"kl_mean":0.51234,"kl_p99":3.25,"top1_agreement":0.625},` +
		`"perplexity":{"source":27.614,"target":37.07,"ratio":1.3424},` +
		`"thresholds":{"max_kl":0.25,"max_ppl_increase":null},"passed":false,` +
		`"failures":["mean KL 0.5123 nats, at most 0.25 allowed"],"warnings":["poor"]}`
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestNumber(t *testing.T) {
	got, err := json.Marshal([]Number{1.5, Number(math.NaN()), Number(math.Inf(-1)), 0})
	if err != nil || string(got) != "[1.5,null,null,0]" {
		t.Errorf("got %s, %v", got, err)
	}
	var back []Number
	if err := json.Unmarshal(got, &back); err != nil || back[0] != 1.5 || back[1].Finite() || back[3] != 0 {
		t.Errorf("got %v, %v", back, err)
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	if err := example().Text(&b); err != nil {
		t.Fatal(err)
	}
	want := `source           models/a
target           a-mla
tokens           4096: written by the source itself from BOS, 8 sequences of 512 tokens, seed 7
cache            384 -> 192 floats per token and layer (50.0 %)

layer  attention error  norm error  stream error
    0           12.3 %     2e-05 %           5 %
   10           1250 %         0 %         100 %

KL               0.5123 nats per token, 99th percentile 3.25
top-1 agreement  62.5 %
perplexity       27.61 -> 37.07 (+34.2 %)
failed: mean KL 0.5123 nats, at most 0.25 allowed
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

// TestOutcomes: every text says what happened, and on what.
func TestOutcomes(t *testing.T) {
	text := func(v *Verification) string {
		var b strings.Builder
		if err := v.Text(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	nan := Number(math.NaN())
	v := example()
	v.Passed, v.Failures = true, nil
	if s := text(v); !strings.HasSuffix(s, "\npassed\n") {
		t.Error(s)
	}
	v.Thresholds = Thresholds{}
	if s := text(v); !strings.HasSuffix(s, "\nno thresholds given\n") {
		t.Error(s)
	}
	v.Passed, v.Failures = false, []string{"layer 1: x", "y"}
	v.Logits, v.Perplexity = Logits{nan, nan, nan}, Perplexity{27, nan, nan}
	if s := text(v); !strings.HasSuffix(s, "perplexity       27 -> not finite\nfailed: layer 1: x\nfailed: y\n") || !strings.Contains(s, "KL               not finite\n") {
		t.Error(s)
	}
	v.Tokens, v.Data = 300, Data{Kind: TextFile, File: "dir/wiki.txt", Sequences: 3, Context: 100}
	if s := text(v); !strings.Contains(s, "wiki.txt, first 3 windows of 100 tokens, no BOS added\n") {
		t.Error(s)
	}
	v.Data = Data{Kind: TextFile, File: "dir/wiki.txt", Sequences: 1, Context: 100, Start: "BOS"}
	if s := text(v); !strings.Contains(s, "wiki.txt, first window of 100 tokens, BOS at the beginning of the text only\n") {
		t.Error(s)
	}
	v.Data = Data{Kind: TokenFile, File: "dir/ids.npy", Sequences: 2, Context: 7}
	if s := text(v); !strings.Contains(s, "ids.npy, 2 sequences of up to 7 tokens\n") {
		t.Error(s)
	}
}

func TestMarkdown(t *testing.T) {
	v := example()
	var b strings.Builder
	if err := v.Markdown(&b); err != nil {
		t.Fatal(err)
	}
	want := `Compared with the source on 4096 tokens: written by the source itself from BOS, 8 sequences of 512 tokens, seed 7.

|  | source -> converted |
|:---|---:|
| cache | 384 -> 192 floats per token and layer (50.0 %) |
| KL | 0.5123 nats per token, 99th percentile 3.25 |
| top-1 agreement | 62.5 % |
| perplexity | 27.61 -> 37.07 (+34.2 %) |

| layer | attention error | norm error | stream error |
|---:|---:|---:|---:|
| 0 | 12.3 % | 2e-05 % | 5 % |
| 10 | 1250 % | 0 % | 100 % |

- failed: mean KL 0.5123 nats, at most 0.25 allowed
- poor
`
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestTable(t *testing.T) {
	table := &Table{Head: []string{"name", "n"}, Names: true}
	table.Add("héé", "1")
	table.Add("a|b", "1000")
	var b strings.Builder
	if err := table.Text(&b); err != nil || b.String() != "name     n\nhéé      1\na|b   1000\n" {
		t.Errorf("got %q, %v", b.String(), err)
	}
	b.Reset()
	if err := table.Markdown(&b); err != nil || !strings.Contains(b.String(), `| a\|b | 1000 |`) {
		t.Errorf("got %q, %v", b.String(), err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a row of the wrong length was taken")
		}
	}()
	table.Add("x")
}

func TestFigure(t *testing.T) {
	for x, want := range map[Number]string{0: "0", 0.00012345: "0.0001234", 27.614: "27.61", 999.96: "1000", 12345.6: "12346", 1.5e9: "1.5e+09", Number(math.Inf(1)): "not finite"} {
		if got := figure(x); got != want {
			t.Errorf("%g: got %s, want %s", float64(x), got, want)
		}
	}
}
