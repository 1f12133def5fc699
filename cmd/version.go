package cmd

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/mlaconvert/mlaconvert/internal/blas"
)

func newVersionCommand(s Streams) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version, the build and the kernels in use",
		Example: "  mlaconvert version",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(s.Out, "mlaconvert %s\n%s %s/%s\nkernels: %s\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH, blas.Features())
			return err
		},
	}
}

// version is the module's version, with the revision it was built from where the build says so.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" {
		v = "(devel)"
	}
	settings := make(map[string]string)
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if revision := settings["vcs.revision"]; revision != "" {
		v += " " + revision
		if settings["vcs.modified"] == "true" {
			v += " modified"
		}
	}
	return v
}
