// crabcache-wal backup
#include "persistence/backup.h"

#include "src/wal_tool/tool.h"

namespace crab::wal {

int RunBackup(Tool& tool) {
  Progress progress(tool.errors, tool.interactive, "backup");
  BackupOptions options;
  options.progress = [&](uint64_t done, uint64_t total) { progress.Show(done, total); };
  options.stop = tool.stop;
  auto report = BackUp(tool.disk, tool.request.directory, tool.request.target, options);
  progress.Clear();
  if (!report.ok()) return tool.Fail(report.message());
  if (tool.request.json) {
    tool.out << JsonObject()
                    .Number("lsn", report->lsn)
                    .Text("target", tool.request.target)
                    .Number("checkpoints", report->checkpoints)
                    .Number("segments", report->segments)
                    .Number("linked_files", report->linked_files)
                    .Number("linked_bytes", report->linked_bytes)
                    .Number("copied_files", report->copied_files)
                    .Number("copied_bytes", report->copied_bytes)
                    .Number("tries", report->tries)
                    .Number("foreign", report->foreign)
                    .Raw("damaged", report->damaged ? "true" : "false")
                    .text()
             << "\n";
  } else {
    tool.out << "backed up to LSN " << report->lsn << " in " << tool.request.target << ": "
             << report->checkpoints << " checkpoints and " << report->segments << " segments, "
             << report->linked_files << " linked, " << report->copied_files << " copied ("
             << FormatBytes(report->copied_bytes) << ")\n";
    if (report->foreign > 0) {
      tool.out << report->foreign << " files of another log were left out\n";
    }
    if (report->damaged) {
      tool.out << "some of it is damaged, and was taken as it is: see verify\n";
    }
  }
  return report->damaged ? kToolCorruption : kToolGood;
}

}  // namespace crab::wal
