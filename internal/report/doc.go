// Package report holds what a verification found, as one struct that is written as text for people, as JSON for programs
// and as Markdown for model cards, and the table that all such texts are made of.
package report
